//! JSON files of a model folder: bounded in size, errors with the file's name.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};

/// Reads a file that must not be larger than `limit`.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let metadata = fs::metadata(path).map_err(Error::io("open", path))?;
    if !metadata.is_file() {
        return Err(Error::not_a_model(path, "not a regular file"));
    }
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(Error::io("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(Error::malformed(
            path,
            format!("larger than {limit} bytes, which no such file is"),
        ));
    }
    Ok(bytes)
}

/// Reads and parses a file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, limit: u64) -> Result<T> {
    serde_json::from_slice(&read_bounded(path, limit)?)
        .map_err(|error| Error::malformed(path, format!("JSON: {error}")))
}

/// A JSON object with the file it is from, to say where a field is wrong.
pub(crate) struct Fields<'a> {
    path: &'a Path,
    /// What the object is within the file, such as `rope_scaling.`; may be empty.
    prefix: &'static str,
    object: &'a serde_json::Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The fields of a file's outermost object.
    pub(crate) fn of_file(path: &'a Path, value: &'a Value) -> Result<Self> {
        let object = value
            .as_object()
            .ok_or_else(|| Error::malformed(path, "not a JSON object"))?;
        Ok(Self {
            path,
            prefix: "",
            object,
        })
    }

    /// A field's value; `null` counts as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// The object under a name; `prefix` is that name and a dot.
    pub(crate) fn object(&self, name: &str, prefix: &'static str) -> Result<Option<Fields<'a>>> {
        self.get(name)
            .map(|value| match value.as_object() {
                Some(object) => Ok(Fields {
                    path: self.path,
                    prefix,
                    object,
                }),
                None => Err(self.wrong(name, "an object")),
            })
            .transpose()
    }

    /// A number of things.
    pub(crate) fn count(&self, name: &str) -> Result<Option<usize>> {
        self.get(name)
            .map(|value| {
                value
                    .as_u64()
                    .and_then(|count| usize::try_from(count).ok())
                    .ok_or_else(|| self.wrong(name, "a whole number"))
            })
            .transpose()
    }

    /// A number of things that must be told.
    pub(crate) fn needed_count(&self, name: &str) -> Result<usize> {
        self.count(name)?.ok_or_else(|| self.missing(name))
    }

    /// A real number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<f64>> {
        self.get(name)
            .map(|value| value.as_f64().ok_or_else(|| self.wrong(name, "a number")))
            .transpose()
    }

    /// A real number that must be told.
    pub(crate) fn needed_number(&self, name: &str) -> Result<f64> {
        self.number(name)?.ok_or_else(|| self.missing(name))
    }

    /// Yes or no, no if absent.
    pub(crate) fn flag(&self, name: &str) -> Result<bool> {
        self.get(name).map_or(Ok(false), |value| {
            value
                .as_bool()
                .ok_or_else(|| self.wrong(name, "true or false"))
        })
    }

    /// A text.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.get(name)
            .map(|value| value.as_str().ok_or_else(|| self.wrong(name, "a string")))
            .transpose()
    }

    /// An error about this object's file.
    pub(crate) fn unsupported(&self, reason: impl Into<String>) -> Error {
        Error::unsupported(self.path, reason)
    }

    fn wrong(&self, name: &str, wanted: &str) -> Error {
        Error::malformed(self.path, format!("{}{name} is not {wanted}", self.prefix))
    }

    fn missing(&self, name: &str) -> Error {
        Error::malformed(self.path, format!("{}{name} is missing", self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_file_and_field() {
        let value = serde_json::json!({"a": -1, "b": {"c": "x"}, "n": null});
        let fields = Fields::of_file(Path::new("config.json"), &value).unwrap();
        let message = fields.count("a").unwrap_err().to_string();
        assert!(message.contains("config.json") && message.contains("a is not a whole number"));
        let inner = fields.object("b", "b.").unwrap().unwrap();
        let message = inner.needed_number("c").unwrap_err().to_string();
        assert!(message.contains("b.c is not a number"), "{message}");
        assert!(
            fields
                .needed_count("n")
                .unwrap_err()
                .to_string()
                .contains("n is missing")
        );
        assert!(fields.object("a", "a.").is_err());
    }

    #[test]
    fn large_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        fs::write(&path, "[1,2,3]").unwrap();
        assert_eq!(read_json::<Vec<u8>>(&path, 7).unwrap(), [1, 2, 3]);
        assert!(
            read_bounded(&path, 6)
                .unwrap_err()
                .to_string()
                .contains("larger than 6")
        );
    }
}
