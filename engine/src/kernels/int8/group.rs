//! What a backend does with a group: the trait that the int8 products are
//! written over.

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
    /// Whether a block's activations lie in words across the group, see
    /// [`super::encode`].
    const ACROSS: bool;
    /// Rows of W (units, see [`super::tile`]) that a product with one row of x
    /// takes together: they share the loads of x.
    const DECODE_UNITS: usize;

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
    /// Multiplies with the zero point of symmetric quantisation, less the bias.
    unsafe fn symmetric(sums: Self::Ints) -> Self::Ints;
    /// Reads the four blocks' stored integer zero points, less the bias.
    unsafe fn zero_points(from: *const u8) -> Self::Ints;
    /// Multiplies block by block.
    unsafe fn mul_ints(a: Self::Ints, b: Self::Ints) -> Self::Ints;
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
    /// The lanes of the first `blocks` blocks (1 to 3), and those of the others;
    /// zero elsewhere.
    unsafe fn split(lanes: Self::Lanes, blocks: usize) -> (Self::Lanes, Self::Lanes);
    /// `a + b`.
    unsafe fn add(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// The sum of all lanes.
    unsafe fn sum(lanes: Self::Lanes) -> f32;
}

/// Four nibbles, the lowest first, as the bytes of an integer.
#[inline(always)]
pub(super) fn spread_nibbles(nibbles: u16) -> i32 {
    let v = u32::from(nibbles);
    let v = (v | v << 8) & 0x00ff_00ff;
    let v = (v | v << 4) & 0x0f0f_0f0f;
    v.cast_signed()
}
