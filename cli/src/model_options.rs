//! The options by which several subcommands load a model.

use std::path::PathBuf;

use anyhow::{Context, Result};
use chaski_engine::{Backend, KvFormat, LoadOptions, Model, Precision};

/// Where the model is and how to load it.
#[derive(Clone, Debug, clap::Args)]
pub struct ModelOptions {
    /// The model folder, as chaski-quantize writes it
    #[arg(long, value_name = "FOLDER")]
    pub model: PathBuf,
    /// Threads to compute with [default: as many as the machine has cores]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub threads: Option<usize>,
    /// Threads to decode with, at most as many [default: all of them]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub decode_threads: Option<usize>,
    /// Cores to pin the threads to, by number [default: where the system puts them]
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    pub cores: Option<Vec<usize>>,
    /// Most tokens the KV cache holds [default: the model's, at most 4096]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub context_length: Option<usize>,
    /// Prompt tokens computed at once [default: 128]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub prefill_chunk: Option<usize>,
    /// Kernels to compute with [default: the fastest that this processor has]
    #[arg(long, value_name = "NAME", value_parser = backend)]
    pub backend: Option<Backend>,
    /// What activations are computed with, int8 or f32 [default: int8]
    #[arg(long, value_name = "TYPE", value_parser = precision)]
    pub activations: Option<Precision>,
    /// What the KV cache is kept in, f16, int8 or f32 [default: f16]
    #[arg(long, value_name = "TYPE", value_parser = kv_format)]
    pub kv_cache: Option<KvFormat>,
}

impl ModelOptions {
    /// Loads the model.
    pub fn load(&self) -> Result<Model> {
        let defaults = LoadOptions::default();
        let options = LoadOptions {
            threads: self.threads,
            decode_threads: self.decode_threads,
            cores: self.cores.clone(),
            context_length: self.context_length,
            prefill_chunk: self.prefill_chunk.unwrap_or(defaults.prefill_chunk),
            backend: self.backend,
            precision: self.activations.unwrap_or(defaults.precision),
            kv_cache: self.kv_cache.unwrap_or(defaults.kv_cache),
        };
        Model::load(&self.model, &options)
            .with_context(|| format!("cannot load the model in {}", self.model.display()))
    }
}

/// A backend by its name.
pub fn backend(name: &str) -> Result<Backend, String> {
    Backend::by_name(name).ok_or_else(|| {
        let names: Vec<_> = Backend::available().iter().map(|b| b.name()).collect();
        format!("this processor has: {}", names.join(", "))
    })
}

/// A type of activations by its name.
pub fn precision(name: &str) -> Result<Precision, String> {
    match name {
        "int8" => Ok(Precision::Int8),
        "f32" => Ok(Precision::Float),
        _ => Err("give int8 or f32".to_owned()),
    }
}

/// A format of the KV cache by its name.
pub fn kv_format(name: &str) -> Result<KvFormat, String> {
    match name {
        "f32" => Ok(KvFormat::F32),
        "f16" => Ok(KvFormat::F16),
        "int8" => Ok(KvFormat::Int8),
        _ => Err("give f16, int8 or f32".to_owned()),
    }
}

/// A count that is not zero.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("not a whole number: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_by_name() {
        assert_eq!(backend("scalar").map(Backend::name), Ok("scalar"));
        let error = backend("abacus").expect_err("there is none");
        assert!(error.contains("scalar"), "{error}");
    }

    #[test]
    fn types_of_activations_by_name() {
        assert_eq!(precision("int8"), Ok(Precision::Int8));
        assert_eq!(precision("f32"), Ok(Precision::Float));
        assert!(precision("q8").is_err());
        assert_eq!(kv_format("f16"), Ok(KvFormat::F16));
        assert_eq!(kv_format("int8"), Ok(KvFormat::Int8));
        assert!(kv_format("q8").is_err());
    }

    #[test]
    fn counts_are_whole_and_not_zero() {
        assert_eq!(at_least_one("12"), Ok(12));
        assert_eq!(at_least_one(" 3"), Ok(3));
        assert!(at_least_one("0").is_err());
        assert!(at_least_one("-1").is_err());
        assert!(at_least_one("two").is_err());
        assert!(at_least_one("99999999999999999999999").is_err());
    }
}
