//! What a backend does with a group: the trait that the int8 products are
//! written over.

use super::tile::Unit;

/// Blocks in a group: 128 weights, which is 64 bytes of 4 bits.
pub(crate) const GROUP: usize = 4;
/// Weights in a group.
pub(crate) const GROUP_WEIGHTS: usize = GROUP * 32;

/// The products of groups of weights of one width on one backend.
///
/// A group is four blocks one behind the other, as they lie in the file. Its
/// integer products are summed per block, and each block's sum stays in lanes of
/// its own ([`Self::Lanes`]), so that one multiplication applies all four scales.
///
/// # Safety
/// Every method may use instructions of the implementing backend: they are
/// called only beneath an entry function that has its target features. Pointers
/// are to a whole group of what the method reads, without alignment.
pub(crate) unsafe trait Group: Copy {
    /// What the products have already subtracted from the quants: the middle of
    /// the range where they read them as signed numbers, 0 otherwise.
    const BIAS: f32;
    /// Bytes of a group in an encoded row: its values, scales and sums, and what
    /// keeps the vectors of the next one aligned.
    const RECORD: usize;

    /// 128 quants, unpacked.
    type Weights: Copy;
    /// 128 activations, in the order in which the quants come.
    type Activations: Copy;
    /// Integers, one a block (other lanes, where there are more, are zero).
    type Ints: Copy;
    /// f32, the lanes that belong to each block.
    type Lanes: Copy;

    /// Reads and unpacks quants.
    unsafe fn weights(from: *const u8) -> Self::Weights;
    /// Reads encoded activations.
    unsafe fn activations(from: *const i8) -> Self::Activations;
    /// Reads a scale for each block.
    unsafe fn f16s(from: *const u16) -> Self::Lanes;
    /// Reads a scale for each block.
    unsafe fn f32s(from: *const f32) -> Self::Lanes;
    /// Reads a number for each block.
    unsafe fn ints(from: *const i32) -> Self::Ints;
    /// All zero.
    unsafe fn zero() -> Self::Ints;
    /// Reads the four blocks' stored integer zero points, less the bias.
    unsafe fn zero_points(from: *const u8) -> Self::Ints;
    /// `a b / 8`, block by block; the product is a multiple of 8.
    unsafe fn mul_ints_by_eighth(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// As f32, in the lanes of the blocks.
    unsafe fn to_lanes(ints: Self::Ints) -> Self::Lanes;
    /// `start + w x`, block by block.
    unsafe fn dot(w: Self::Weights, x: Self::Activations, start: Self::Ints) -> Self::Lanes;
    /// All lanes `value`.
    unsafe fn splat(value: f32) -> Self::Lanes;
    /// `a b`.
    unsafe fn mul(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// `a b + c`.
    unsafe fn mul_add(a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes;
    /// The lanes of the first two blocks, and those of the others; zero elsewhere.
    unsafe fn halves(lanes: Self::Lanes) -> (Self::Lanes, Self::Lanes);
    /// `a + b`.
    unsafe fn add(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// The sums of all lanes of each.
    unsafe fn sums(lanes: [Self::Lanes; 4]) -> [f32; 4];

    /// All lanes' sum in the lanes of the first two blocks; zero elsewhere.
    unsafe fn fold(lanes: Self::Lanes) -> Self::Lanes;
    /// The lanes of the last two blocks; zero elsewhere.
    #[inline(always)]
    unsafe fn upper(lanes: Self::Lanes) -> Self::Lanes {
        // SAFETY: features by the contract.
        unsafe { Self::halves(lanes).1 }
    }
    /// The lanes of the first two blocks of each.
    unsafe fn pack(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;

    /// The sums of what was packed, each followed by that of `lanes`: `a`, `lanes[0]`,
    /// `b`, `lanes[1]`.
    #[inline(always)]
    unsafe fn sums_between(packed: Self::Lanes, lanes: [Self::Lanes; 2]) -> [f32; 4] {
        // SAFETY: features by the contract.
        unsafe {
            let (a, b) = Self::halves(packed);
            Self::sums([a, lanes[0], b, lanes[1]])
        }
    }

    /// [`Self::strided`] is there for `R` units of symmetric weights and one row of x.
    const STRIDED: usize = 0;

    /// Adds the products of `groups` groups of `R` units, the first unit's at `unit` and
    /// each next one `strides` bytes (of quants, of scales) further on, and leaves `unit`
    /// and `x` behind them.
    ///
    /// The same as group by group, in fewer instructions.
    unsafe fn strided<const R: usize, const T: usize>(
        _groups: usize,
        _unit: &mut Unit,
        _strides: [usize; 2],
        _x: &mut *const u8,
        _totals: &mut [[Self::Lanes; T]; R],
    ) {
        unreachable!("products at a stride where there are none");
    }

    /// Asks for the quants or scales that products reach a while later; the place
    /// may be outside.
    #[inline(always)]
    unsafe fn prefetch(_from: *const u8) {}

    /// Gives `pointer` back, and keeps the compiler from moving what is read
    /// there before `lanes` are computed: it would run out of registers.
    #[inline(always)]
    unsafe fn after<T>(pointer: *const T, _lanes: Self::Lanes) -> *const T {
        pointer
    }
}

/// Four nibbles, the lowest first, as the bytes of an integer.
#[inline(always)]
pub(super) fn spread_nibbles(nibbles: u16) -> i32 {
    let v = u32::from(nibbles);
    let v = (v | v << 8) & 0x00ff_00ff;
    let v = (v | v << 4) & 0x0f0f_0f0f;
    v.cast_signed()
}
