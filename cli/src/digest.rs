//! SHA-256 of streams and files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

/// What a stream held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summed {
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in lower-case hexadecimal.
    pub sha256: String,
}

/// Reads `from` to its end, handing each part to `each`.
pub fn sum(
    from: &mut dyn Read,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<Summed> {
    let mut hash = Sha256::new();
    let mut bytes = 0u64;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let part = buffer.get(..count).unwrap_or_default();
        hash.update(part);
        bytes = bytes.saturating_add(part.len() as u64);
        each(part)?;
    }
    let sha256 = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Ok(Summed { bytes, sha256 })
}

/// Sums up a file.
pub fn sum_file(path: &Path) -> io::Result<Summed> {
    sum(&mut File::open(path)?, |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_fips_180() {
        let mut seen = Vec::new();
        let summed = sum(&mut &b"abc"[..], |part| {
            seen.extend_from_slice(part);
            Ok(())
        })
        .expect("reads");
        assert_eq!(
            summed.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(summed.bytes, 3);
        assert_eq!(seen, b"abc");
    }

    #[test]
    fn a_failure_of_the_receiver_ends_it() {
        let result = sum(&mut &b"abc"[..], |_| Err(io::Error::other("full")));
        assert!(result.is_err());
    }
}
