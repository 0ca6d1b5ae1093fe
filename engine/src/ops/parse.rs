//! What the parsers of our operators have in common.

use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_hir::internal::*;

/// What a parser gives to tract: an operator, and names it closes over (none).
pub(super) type Parsed = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// What tract's inference may conclude about an operator before it is typed.
type Rules = for<'r, 'p, 's> fn(
    &'s dyn Op,
    &mut Solver<'r>,
    &'p [TensorProxy],
    &'p [TensorProxy],
) -> InferenceResult;

/// Wraps an operator with one output; `output_facts` says the rest.
pub(super) fn parsed(op: impl TypedOp, rules: Rules) -> Parsed {
    Ok((inference_wrap(op, 1, rules), vec![]))
}

/// Refuses a node whose integer attributes ask for something that our operators
/// do not do: `(name, default, the value that runs)`.
pub(super) fn check_attributes(node: &NodeProto, due: &[(&str, i64, i64)]) -> TractResult<()> {
    for &(name, default, due) in due {
        let value = node.get_attr_opt::<i64>(name)?.unwrap_or(default);
        ensure!(
            value == due,
            "{} with {name} {value}: only {due} runs",
            node.op_type
        );
    }
    Ok(())
}
