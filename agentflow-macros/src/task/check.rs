//! [`Function`] → [`Signature`]: the rules of a durable task's signature. All are applied, so that all mistakes show at
//! once.

use syn::{FnArg, ReturnType};

use super::parameters::{Parameter, parameter};
use crate::{
    errors::Errors,
    node::{
        check::{is_method, qualifiers, result_without_name},
        parameters::Seen,
        syntax::Function,
    },
    types::bare,
};

/// The part of a function's signature that its impls depend on.
#[derive(Default)]
pub(crate) struct Signature {
    /// The parameters, in the function's order.
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) is_method: bool,
}

pub(crate) fn check(function: &Function, errors: &mut Errors) -> Signature {
    let mut signature = Signature::default();
    if is_method(function, "durable task", "take what it needs as `args`", errors) {
        signature.is_method = true;
        return signature;
    }
    qualifiers(function, "durable task", errors);
    if !function.sig.generics.params.is_empty() {
        let text = "a durable task has no generic parameters: its stored name stands for one function";
        errors.spanning(&function.sig.generics.params, text);
    }
    let mut seen = Seen::default();
    for input in &function.sig.inputs {
        if let FnArg::Typed(input) = input
            && let Some((name, parameter)) = parameter(input, errors)
        {
            if !seen.is_first(input, name, "durable task", errors) {
                continue;
            }
            if let Parameter::Inject(service) = &parameter {
                seen.service(input, service, errors);
            }
            signature.parameters.push(parameter);
        }
    }
    if let ReturnType::Type(_, output) = &function.sig.output {
        result_without_name(bare(output), "durable task", "so that its outcome is recorded", errors);
    }
    signature
}
