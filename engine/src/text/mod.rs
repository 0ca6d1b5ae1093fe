//! Text to tokens and back: the tokenizer, the chat template, and the text of a
//! generation as it comes.

mod bpe;
mod chat_input;
mod chat_template;
mod codec;
mod configs;
mod decoder;
mod detokenise;
mod error;
mod python;
mod stop;
mod table;
#[cfg(test)]
mod test_tokenizers;
mod tojson;
mod tokenizer;

pub use chat_input::ChatInput;
pub(crate) use codec::Codec;
pub(crate) use detokenise::Detokeniser;
pub(crate) use error::TextError;
pub(crate) use stop::StopMatcher;
