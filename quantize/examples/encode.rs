//! Encodes texts with a `tokenizer.json`, as the engine does: the tests hold the ids
//! against llama.cpp's.
//!
//! `encode TOKENIZER.json`: a JSON array of texts on standard input, a JSON array of
//! arrays of ids (with the special tokens the model adds) on standard output.

use std::error::Error;
use std::io;

use tokenizers::Tokenizer;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let path = std::env::args_os()
        .nth(1)
        .ok_or("usage: encode TOKENIZER.json < TEXTS.json > IDS.json")?;
    let tokenizer = Tokenizer::from_file(path)?;
    let texts: Vec<String> = serde_json::from_reader(io::stdin().lock())?;
    let mut ids: Vec<Vec<u32>> = Vec::new();
    for text in texts {
        ids.push(tokenizer.encode(text, true)?.get_ids().to_vec());
    }
    serde_json::to_writer(io::stdout().lock(), &ids)?;
    Ok(())
}
