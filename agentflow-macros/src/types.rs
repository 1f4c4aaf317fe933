//! Types as the user wrote them: a macro knows their names only.

use syn::{GenericArgument, PathArguments, PathSegment, Type, TypePath};

/// Returns the `T` of an `Option<T>`.
pub(crate) fn optional(ty: &Type) -> Option<&Type> {
    let is_option = last_segment(ty).is_some_and(|last| last.ident == "Option");
    if is_option { type_arguments(ty).first().copied() } else { None }
}

pub(crate) fn last_segment(ty: &Type) -> Option<&PathSegment> {
    match bare(ty) {
        Type::Path(TypePath { qself: None, path, .. }) => path.segments.last(),
        _ => None,
    }
}

pub(crate) fn type_arguments(ty: &Type) -> Vec<&Type> {
    let Some(PathArguments::AngleBracketed(args)) = last_segment(ty).map(|last| &last.arguments) else {
        return Vec::new();
    };
    let types = args.args.iter().filter_map(|arg| match arg {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    });
    types.collect()
}

/// Returns true if the type has the name of a collection of std.
pub(crate) fn is_std_collection(ty: &Type) -> bool {
    const COLLECTIONS: [&str; 8] =
        ["Vec", "VecDeque", "LinkedList", "BinaryHeap", "HashMap", "HashSet", "BTreeMap", "BTreeSet"];
    last_segment(ty).is_some_and(|last| COLLECTIONS.iter().any(|name| last.ident == name))
        && !type_arguments(ty).is_empty()
}

/// Removes the invisible group in which `macro_rules!` passes a `$ty:ty`.
pub(crate) fn bare(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => bare(&group.elem),
        ty => ty,
    }
}
