//! ggml's type codes.

use std::path::Path;

use crate::error::{Error, Result};
use crate::source::Encoding;

/// The encoding of a code; a tensor of any other is refused by the code's name.
pub(super) fn encoding(path: &Path, name: &str, code: u32) -> Result<Encoding> {
    let other = match code {
        0 => return Ok(Encoding::F32),
        1 => return Ok(Encoding::F16),
        2 => return Ok(Encoding::Q4_0),
        3 => return Ok(Encoding::Q4_1),
        6 => return Ok(Encoding::Q5_0),
        7 => return Ok(Encoding::Q5_1),
        8 => return Ok(Encoding::Q8_0),
        12 => return Ok(Encoding::Q4K),
        13 => return Ok(Encoding::Q5K),
        14 => return Ok(Encoding::Q6K),
        30 => return Ok(Encoding::Bf16),
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => {
            return Err(Error::malformed(
                path,
                format!("tensor {name} is of the unknown type {code}"),
            ));
        }
    };
    Err(Error::unsupported(
        path,
        format!(
            "tensor {name} is stored as {other}; F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, \
             Q4_K, Q5_K and Q6_K are read"
        ),
    ))
}
