//! SplitMix64: pseudo-random numbers fast enough to fill a disk with.

/// The golden ratio in 64 bits: odd, so a state returns only after 2⁶⁴ steps.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A stream of numbers that is the same on every machine.
pub(super) struct Stream(u64);

impl Stream {
    /// The stream of a row; every seed, tensor and row has its own.
    pub(super) fn of_row(seed: u64, tensor: &str, row: usize) -> Self {
        // FNV-1a: the names differ in few letters, which `mix` then spreads.
        let name = tensor.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(mix(mix(mix(seed) ^ name) ^ row as u64))
    }

    /// The next 64 bits.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }
}

/// Every bit of the result depends on every bit of `x`.
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_splitmix64() {
        // The first outputs of Vigna's splitmix64.c with the state 1234567.
        let mut stream = Stream(1_234_567);
        let numbers = [0; 3].map(|_| stream.next());
        assert_eq!(
            numbers,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn seeds_tensors_and_rows_have_streams_of_their_own() {
        let first = |seed, tensor, row| Stream::of_row(seed, tensor, row).next();
        let mut seen = vec![
            first(0, "a", 0),
            first(1, "a", 0),
            first(0, "b", 0),
            first(0, "a", 1),
        ];
        assert_eq!(seen[0], first(0, "a", 0));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 4);
    }
}
