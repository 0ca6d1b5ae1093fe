//! What can go wrong between an input file and a model folder.

use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error that names the thing, the place and, where there is one, the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: "open", "map", "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The input is none of the forms that are read.
    #[error("{}: not a model that can be read: {reason}", path.display())]
    NotAModel {
        /// The input as it was given.
        path: PathBuf,
        /// Why, and what would do.
        reason: String,
    },
    /// A well-formed model of a kind that is not supported.
    #[error("{}: not supported: {reason}", path.display())]
    Unsupported {
        /// The file that says so.
        path: PathBuf,
        /// The feature, by its name.
        reason: String,
    },
    /// A truncated, corrupt or contradictory file.
    #[error("{}: damaged or malformed: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and how.
        reason: String,
    },
    /// A tensor that the architecture needs is not there.
    #[error("{}: tensor {name} is missing", path.display())]
    MissingTensor {
        /// The file or folder that should hold it.
        path: PathBuf,
        /// The name in the source's own naming.
        name: String,
    },
    /// A tensor's shape contradicts the architecture's figures.
    #[error("{}: tensor {name} has shape {found:?}, expected {expected:?}", path.display())]
    WrongShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// As stored, outermost dimension first.
        found: Vec<u64>,
        /// As the architecture has it.
        expected: Vec<u64>,
    },
    /// Figures that no Llama of this program can have.
    #[error("model figures: {0}")]
    Architecture(String),
    /// A caller asked for rows or a tensor that do not exist.
    #[error("tensor {name}: {reason}")]
    Read {
        /// Hugging Face name of the tensor.
        name: String,
        /// What was wrong with the request.
        reason: String,
    },
    /// A weight that cannot be quantised.
    #[error(
        "tensor {tensor}: the weight in row {row}, column {column} {reason}: the source is damaged or was never fit for quantisation"
    )]
    BadWeight {
        /// Hugging Face name of the tensor.
        tensor: String,
        /// Row of the first such weight.
        row: usize,
        /// Its column.
        column: usize,
        /// What is wrong, as a predicate.
        reason: String,
    },
    /// The model folder cannot be put where it should go.
    #[error("{}: {reason}", path.display())]
    Output {
        /// The folder as it was given.
        path: PathBuf,
        /// Why not, and what would do.
        reason: String,
    },
    /// An option that contradicts the model.
    #[error("{0}")]
    Options(String),
    /// A signal asked to stop.
    #[error("interrupted; nothing was written")]
    Interrupted,
}

impl Error {
    /// An [`Error::Io`] for use in `map_err`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// An [`Error::Malformed`].
    pub fn malformed(path: &Path, reason: impl Into<String>) -> Self {
        Self::Malformed {
            path: path.to_path_buf(),
            reason: reason.into(),
        }
    }

    /// An [`Error::Unsupported`].
    pub fn unsupported(path: &Path, reason: impl Into<String>) -> Self {
        Self::Unsupported {
            path: path.to_path_buf(),
            reason: reason.into(),
        }
    }

    /// An [`Error::NotAModel`].
    pub fn not_a_model(path: &Path, reason: impl Into<String>) -> Self {
        Self::NotAModel {
            path: path.to_path_buf(),
            reason: reason.into(),
        }
    }

    /// An [`Error::Read`].
    pub fn read(name: &str, reason: impl Into<String>) -> Self {
        Self::Read {
            name: name.to_owned(),
            reason: reason.into(),
        }
    }
}

impl From<chaski_manifest::Invalid> for Error {
    fn from(invalid: chaski_manifest::Invalid) -> Self {
        Self::Architecture(invalid.0)
    }
}
