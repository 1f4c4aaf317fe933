#![deny(warnings, missing_docs, missing_debug_implementations, unreachable_pub)]
//! Every form of `#[derive(State)]`, without one warning.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use agentflow::State;

/// Private, as most states are.
#[derive(Clone, Debug, Default, State)]
struct Forms {
    title: String,
    pages: u32,
    limit: Option<u64>,
    r#type: String,
    default: f64,
    #[state(append)]
    notes: Vec<String>,
    #[state(append)]
    scores: Vec<f32>,
    #[state(append)]
    queue: VecDeque<u8>,
    #[state(append)]
    words: HashMap<String, usize>,
    #[state(append)]
    tree: BTreeMap<String, String>,
    #[state(append)]
    tags: BTreeSet<&'static str>,
    #[state(with = longest)]
    summary: String,
    #[state(with = rules::most)]
    votes: u64,
}

fn longest(old: &mut String, new: String) {
    if new.len() > old.len() {
        *old = new;
    }
}

mod rules {
    pub(super) fn most<T: Ord>(old: &mut T, new: T) {
        if new > *old {
            *old = new;
        }
    }
}

#[derive(Clone, State)]
struct Empty {}

#[derive(Clone, State)]
struct Unit;

// Mutated in place: the code never uses its update.
#[derive(Clone, State)]
struct InPlace {
    pages: u32,
}

/// Generic, with bounds of its own.
#[derive(Clone, Default, State)]
struct Generic<T: Ord, const N: usize = 2>
where
    T: std::fmt::Debug,
{
    best: Option<T>,
    #[state(append)]
    all: Vec<T>,
    #[state(with = rules::most)]
    sizes: Vec<[usize; N]>,
}

// Types in invisible groups, as `macro_rules!` passes them.
macro_rules! state {
    ($name:ident { $($field:ident: $ty:ty),* }) => {
        #[derive(Clone, Default, State)]
        struct $name {
            $(#[state(append)] $field: $ty,)*
            pages: u32,
        }
    };
}
state!(ByMacro { scores: Vec<f32> });

// Local items may have names of the prelude.
mod shadowed {
    #![allow(dead_code)]

    struct Option;
    struct Vec;
    struct Into;
    struct Clone;
    struct Default;
    struct Update;
    mod core {}
    mod std {}

    #[derive(::std::clone::Clone, agentflow::State)]
    struct Shadowed {
        update: ::std::string::String,
        #[state(append)]
        state: ::std::vec::Vec<u8>,
    }
}

fn main() {
    #[derive(Clone, Default, State)]
    struct Local {
        pages: i64,
    }

    let mut forms = Forms::default();
    forms.apply(
        Forms::update()
            .title("Owls")
            .pages(3)
            .limit(7)
            .r#type("report")
            .default(1.5)
            .notes(["a", "b"])
            .scores([1.0])
            .queue([1, 2])
            .words([("a".to_owned(), 1)])
            .tree([("a".to_owned(), "b".to_owned())])
            .tags(["x"])
            .summary("long")
            .summary("short")
            .votes(3),
    );
    assert_eq!((forms.title.as_str(), forms.pages, forms.limit), ("Owls", 3, Some(7)));
    assert_eq!((forms.r#type.as_str(), forms.default), ("report", 1.5));
    assert_eq!((forms.summary.as_str(), forms.votes), ("short", 3));
    assert_eq!((forms.scores.len(), forms.queue.len(), forms.words.len()), (1, 2, 1));
    assert_eq!((forms.notes.len(), forms.tree.len(), forms.tags.len()), (2, 1, 1));

    let mut generic = Generic::<&str>::default();
    generic.apply(Generic::update().best("b").all(["a", "b"]).sizes([[1, 2]]));
    assert_eq!((generic.best, generic.all.len(), generic.sizes.len()), (Some("b"), 2, 1));

    let mut local = Local::default();
    local.apply(Local::update().pages(-1));
    assert_eq!(local.pages, -1);

    ByMacro::default().apply(ByMacro::update().pages(1).scores([1.0]));
    InPlace { pages: 1 }.pages += 1;
    Empty {}.apply(Empty::update());
    Unit.apply(Unit::update());
}
