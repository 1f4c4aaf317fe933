//! `Self` in a field is the state, also in its update.
#![deny(warnings)]

use agentflow::State;

#[derive(Clone, Debug, Default, PartialEq, State)]
struct Report {
    title: String,
    #[state(append)]
    parts: Vec<Self>,
    next: Option<Box<Self>>,
    marks: [u8; Self::MARKS],
    #[state(with = <u32 as std::ops::AddAssign>::add_assign)]
    count: u32,
}

impl Report {
    const MARKS: usize = 2;
}

#[derive(Clone, Default, State)]
struct Tree<T> {
    leaf: T,
    branches: Vec<Self>,
}

fn main() {
    let mut report = Report::default();
    let next = Report { title: "next".into(), ..Report::default() };
    let update = Report::update().title("x").parts([Report::default()]).next(Box::new(next)).marks([1; 2]).count(3);
    report.apply(update);
    assert_eq!(report.parts, [Report::default()]);
    assert_eq!(report.next.expect("it was set").title, "next");
    assert_eq!((report.title.as_str(), report.marks, report.count), ("x", [1, 1], 3));

    let mut tree = Tree::<String>::default();
    tree.apply(Tree::update().leaf("leaf").branches([Tree::default()]));
    assert_eq!((tree.leaf.as_str(), tree.branches.len()), ("leaf", 1));
}
