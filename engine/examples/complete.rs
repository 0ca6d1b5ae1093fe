//! Completes a chat question: `complete FOLDER QUESTION`.
use chaski_engine::{ChatInput, GenerateOptions, LoadOptions, Model, Piece};
use std::io::Write as _;
use std::ops::ControlFlow;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, folder, question] = &args[..] else {
        return Err("usage: complete FOLDER QUESTION".into());
    };
    let model = Model::load(folder.as_ref(), &LoadOptions::default())?;
    let prompt = model.chat_prompt(&ChatInput {
        messages: serde_json::json!([{"role": "user", "content": question}]),
        ..ChatInput::default()
    })?;
    let options = GenerateOptions {
        max_tokens: Some(100),
        ..GenerateOptions::default()
    };
    let mut print = |piece: Piece<'_>| {
        print!("{}", piece.text);
        let _ = std::io::stdout().flush();
        ControlFlow::Continue(())
    };
    let prompt = model.encode(&prompt, false)?;
    let done = model.session()?.generate(&prompt, &options, &mut print)?;
    println!("\nloaded in {:?}: {:?}", model.load_time(), done.timings);
    Ok(())
}
