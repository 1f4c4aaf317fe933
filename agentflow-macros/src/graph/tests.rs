//! Snapshots of the expansion, which has every mention and the graph's type even for invalid input, and the text of
//! each mistake. `ui-tests` has rustc's output.

use proc_macro2::TokenStream;
use proptest::prelude::*;
use quote::quote;

use super::expand;
use crate::testing::{self, contains, lexes, pretty_expression, quick, soup, unspaced};

fn pretty(input: TokenStream) -> String {
    pretty_expression(&expand(input))
}

fn mistakes(input: TokenStream) -> Vec<String> {
    testing::mistakes(expand(input))
}

/// Asserts that the expansion of invalid input is an expression with each of `mentions` and with the graph's type.
#[track_caller]
fn survives(input: &str, mentions: &[&str]) -> TokenStream {
    let output = keeps(input, mentions);
    let _ = pretty_expression(&output);
    output
}

/// Asserts the same for input with an unfinished expression, which the macro copies, so that the output does not parse.
#[track_caller]
fn keeps(input: &str, mentions: &[&str]) -> TokenStream {
    let output = expand(input.parse().expect("tokens"));
    assert_ne!(testing::mistakes(output.clone()), [""; 0], "{input}");
    for mention in mentions {
        assert!(contains(&output, &format!("let _ : ({mention}) ;")), "{mention}: {output}");
    }
    assert!(contains(&output, "__af :: poisoned (__g , __options)"), "{output}");
    output
}

#[test]
fn one_node() {
    insta::assert_snapshot!(pretty(quote!(MAIN -> END)));
}

#[test]
fn chains() {
    insta::assert_snapshot!(pretty(quote! {
        START -> a;
        b -> other::c -> END;
        a -> b;
    }));
}

#[test]
fn bindings() {
    insta::assert_snapshot!(pretty(quote! {
        node FIRST = nodes::first;
        node same = same;
        node ASK = ask::<OpenAi>;
        node VALUE = Tool::new("x");
        node VARIABLE = (tool);
        FIRST -> same -> ASK -> VALUE -> VARIABLE -> END;
    }));
}

#[test]
fn headers_and_options() {
    insta::assert_snapshot!(pretty(quote! {
        crate = crate::flow;
        name = "support";
        type State = Support<T>;
        a -> END;
        compile { shutdown_timeout: 1.5s, recursion_limit: 2 * n, services: services }
    }));
}

#[test]
fn a_graph_with_a_store() {
    insta::assert_snapshot!(pretty(quote! {
        name = "mail";
        node TOOL = tool();
        graph INNER { b -> END }
        a -> INNER -> TOOL -> END;
        compile { store: Store::open(path)? }
    }));
}

#[test]
fn a_graph_with_a_store_has_a_name() {
    let text = "a graph with a store has a name, under which the store keeps its threads: write `name = \"support\";`";
    assert_eq!(mistakes(quote!(a -> END; compile { store: store })), [text]);
    assert_eq!(mistakes(quote!(name = ""; a -> END; compile { store: store })), [text]);
    assert_eq!(mistakes(quote!(name = mail; a -> END; compile { store: store })).len(), 1);
}

#[test]
fn a_decision_by_a_router() {
    insta::assert_snapshot!(pretty(quote! {
        a -> match next {
            Step::Tools { name, .. } if name == limit => b -> m::c -> a,
            Step::Done(_, 3) | Step::Never => END,
        };
    }));
}

#[test]
fn a_decision_by_what_a_node_returned() {
    insta::assert_snapshot!(pretty(quote! {
        node VALUE = Tool::new();
        a -> match { true => VALUE, false => END };
        VALUE -> match { Some(_) => a, None => END };
    }));
}

#[test]
fn groups() {
    insta::assert_snapshot!(pretty(quote! {
        node VALUE = Tool::new();
        START -> { a -> ask::<T>, { VALUE, m::b } } -> match next { true => { c, d } -> END, false => END };
    }));
}

#[test]
fn each_and_any() {
    insta::assert_snapshot!(pretty(quote! {
        node LOOK_UP = look_up { retry: 2, on_error: skip };
        a -> each words { max_parallel: 3, on_error: recover } { LOOK_UP -> b } -> any { c, VALUE } -> END;
        node VALUE = Tool::new();
        recover -> END;
    }));
}

#[test]
fn values_on_edges() {
    insta::assert_snapshot!(pretty(quote! {
        model -> match { Step::Tools(calls) => tools(calls.clone()) -> model, Step::Done => END };
    }));
}

#[test]
fn control_flow_in_a_branch() {
    insta::assert_snapshot!(pretty(quote! {
        graph INNER { x -> END }
        a -> { b -> match { Step::Again(n) => b2(n) -> b, Step::Done => JOIN }, INNER -> c } -> END;
    }));
}

#[test]
fn a_graph_inside() {
    insta::assert_snapshot!(pretty(quote! {
        type State = S;
        graph INNER {
            node B = b { retry: 1 };
            B -> match next { true => END, false => B };
        }
        a -> INNER -> END;
    }));
}

#[test]
fn options_of_nodes() {
    insta::assert_snapshot!(pretty(quote! {
        node A = a { retry: 3, timeout: 1.5s, on_error: RECOVER };
        node RECOVER = Tool::new() { label: "mend" };
        A -> END;
        RECOVER -> END;
    }));
}

/// A mistake that a misspelt name may have caused depends on the names of its own graph.
#[test]
fn mistakes_that_may_follow_from_others() {
    insta::assert_snapshot!(pretty(quote! {
        graph INNER { b -> c }
        a -> INNER -> ask::<T, 3>;
        d -> END;
    }));
}

#[test]
fn a_mistake() {
    insta::assert_snapshot!(pretty(quote! {
        node FIRST = a;
        node SECOND = Tool::new();
        node THIRD = ;
        FIRST -> SECOND ->;
        other:: -> b c -> END;
        compile { shutdown_timeout: , recursion_limit: 3 }
    }));
}

#[test]
fn the_same_tokens_give_the_same_output() {
    let input = || quote! { node X = a; node Y = f(); X -> Y -> b -> END; compile { a: 1, b: 2 } };
    assert_eq!(expand(input()).to_string(), expand(input()).to_string());
    let unused = || quote! { node X = a; node Y = b; node Z = c; a -> END };
    assert_eq!(expand(unused()).to_string(), expand(unused()).to_string());
}

#[test]
fn a_renamed_crate_is_named_nowhere_by_its_old_name() {
    for rest in [
        quote!(a -> match r { A => { b, c } -> END, B => X }; graph X { d -> match { true => END } } X -> END),
        quote!(a -> match { A:: => b, }),
        quote!(a -> b),
        quote!(a -> END),
        quote!(START -> X; node X = f(); X -> END; compile { timeout: 1s }),
        quote!(a -> b c),
        quote!(a -> END -> b),
        quote!(),
    ] {
        let output = expand(quote! { crate = crate::flow; #rest });
        // The text of a mistake may contain the old name, but no path may.
        let output = output.to_string();
        assert!(!output.contains(":: agentflow"), "{output}");
        assert!(!output.contains("agentflow ::"), "{output}");
    }
}

#[test]
fn a_path_with_generic_arguments_is_one_node_however_it_is_written() {
    assert_eq!(mistakes(quote!(ask<A> -> b -> END; START -> ask::<A>)), [""; 0]);
    assert_eq!(mistakes(quote!(ask<fn(A) -> B, C> -> END)), [""; 0]);
    assert_eq!(mistakes(quote!(ask::<Vec<Vec<u8>>> -> x::y<(A, B), 3>::z -> END)), [""; 0]);
}

#[test]
fn nodes_may_have_the_names_of_keywords() {
    for name in [quote!(node), quote!(name), quote!(compile), quote!(tasks), quote!(State), quote!(r#type)] {
        assert_eq!(mistakes(quote!(#name -> a -> END)), [""; 0], "{name}");
        assert_eq!(mistakes(quote!(a -> #name -> END)), [""; 0], "{name}");
    }
}

#[test]
fn what_is_missing_or_too_much_in_a_list_of_tasks() {
    assert_eq!(mistakes(quote!(a -> END; tasks { deliver, b::report, } tasks {} compile {})), [""; 0]);
    let cases = [
        (quote!(a -> END; tasks { deliver, 3 }), "expected a durable task: `tasks { deliver }`"),
        (quote!(a -> END; tasks { deliver report }), "expected `,`"),
        (quote!(a -> END; tasks { mail:: }), "expected a name after `::`"),
        (quote!(a -> END; tasks { deliver, deliver }), "`deliver` is registered already"),
        (quote!(a -> END; tasks { deliver } tasks { deliver }), "`deliver` is registered already"),
        (quote!(a -> END; tasks = [deliver]), "expected the durable tasks of the app: `tasks { deliver }`"),
        (quote!(a -> END; tasks(deliver)), "expected the durable tasks of the app: `tasks { deliver }`"),
        (
            quote!(X -> END; graph X { a -> END; tasks { deliver } }),
            "`tasks` is for the whole graph: write it in the outer graph",
        ),
    ];
    for (input, expected) in cases {
        assert_eq!(mistakes(input.clone()), [expected], "{input}");
    }
}

#[test]
fn what_is_missing_or_too_much_in_a_chain() {
    let after = "expected a node, `{ .. }`, `match` or `END` after `->`";
    let before = "expected a node, `{ .. }`, `match` or `END` before `->`";
    let place = "expected a node, `{ .. }`, `match` or `END`";
    let stray = "expected `->` or `;`";
    let cases = [
        (quote!(a ->), after),
        (quote!(a -> ; b -> END), after),
        (quote!(-> a), before),
        (quote!(a -> -> END), before),
        (quote!(a b), stray),
        (quote!(a, b), stray),
        (quote!(a => b), stray),
        (quote!(a - b), stray),
        (quote!(a -> END; b. -> END), stray),
        (quote!(a -> 1 -> END), place),
        (quote!(a -> "b" -> END), place),
        (quote!(a<B -> END), "expected a `>` that closes this `<`"),
        (quote!(a:: -> END), "expected a name after `::`"),
    ];
    for (input, expected) in cases {
        assert_eq!(mistakes(input.clone()), [expected], "{input}");
    }
}

#[test]
fn what_is_missing_or_too_much_in_a_decision() {
    let arm = "expected `PATTERN => NODE`";
    let target = "expected a node or `END` after `=>`";
    let after = "nothing can follow a `match`: write what follows inside its arms, `PATTERN => A -> B`";
    let cases = [
        (quote!(a -> match), "expected arms: `match router { Route::A => A, Route::B => END }`"),
        (quote!(a -> match r), "expected arms: `match router { Route::A => A, Route::B => END }`"),
        (quote!(a -> match r {}), "a decision needs arms: `match router { Route::A => A, Route::B => END }`"),
        (quote!(a -> match {}), "a decision needs arms: `match router { Route::A => A, Route::B => END }`"),
        (quote!(a -> match r { A }), arm),
        (quote!(a -> match r { A, B => END }), arm),
        (quote!(a -> match r { , B => END }), arm),
        (quote!(a -> match r { A -> b }), arm),
        (quote!(a -> match r { A => }), target),
        (quote!(a -> match r { A => , B => END }), target),
        (quote!(a -> match r { => END }), "expected a pattern before `=>`"),
        (quote!(a -> match r { A => a B => END }), "expected `->` or `,`"),
        (quote!(a -> match r { A => match s { B => END } }), "`match` needs a node before it: `A -> match .. { .. }`"),
        (quote!(a -> match r { A => a -> match s { B => END } C => END }), "expected `,` after the `match`"),
        (
            quote!(match r {
                A => a,
            }),
            "`match` needs a node before it: `A -> match .. { .. }`",
        ),
        (quote!(START -> match r { A => a }), "a graph starts at a node: `START -> A -> match .. { .. }`"),
        (quote!(a -> END -> match r { A => a }), "nothing can follow `END`"),
        (quote!(a -> match r { A => END } -> b), after),
        (quote!(a -> match r { A => END } b -> END), "expected `;` after the `match`"),
        (quote!(a -> match r { A => START }), "`START` can only begin a chain"),
        (
            quote!(a -> { b, c } -> match { A => END }),
            "a group returns no route to match: name a function of the state, `match router { .. }`",
        ),
    ];
    for (input, expected) in cases {
        assert_eq!(mistakes(input.clone()), [expected], "{input}");
    }
}

#[test]
fn what_is_missing_or_too_much_in_a_group() {
    let place = |name: &str| {
        format!(
            "`{name}` is used elsewhere already, and a branch has nodes of its own; give this use its own name: \
             `node OTHER = {name};`"
        )
    };
    let cases = [
        (quote!(a -> {} -> END), "a group needs branches: `{ B, C }`".to_owned()),
        (quote!(a -> { b, , c } -> END), "expected a branch before `,`".to_owned()),
        (quote!(a -> { b c } -> END), "expected `->` or `,`".to_owned()),
        (
            quote!({ a, b } -> END),
            "a graph that begins with a group needs an entry point: `START -> { .. }`".to_owned(),
        ),
        (quote!(a -> { b, c }), "this group has no outgoing edge; end the graph with `{ .. } -> END`".to_owned()),
        (quote!(a -> { b -> c, b } -> END), place("b")),
        (quote!(b -> { b, c } -> END), place("b")),
        (quote!(a -> { b, c } -> c -> END), place("c")),
        (quote!(a -> { b, { c } } -> { c } -> END), place("c")),
        (quote!(node A = a { on_error: b }; A -> { b, c } -> END), place("b")),
        (
            quote!(a { retry: 3 } -> END),
            "a node's options belong to its binding: `node NAME = my_node { .. };`".to_owned(),
        ),
        (quote!(a -> END; { b, c } -> END), "this group can never run: no path leads to it from `a`".to_owned()),
    ];
    for (input, expected) in cases {
        assert_eq!(mistakes(input.clone()), [expected], "{input}");
    }
}

#[test]
fn what_is_missing_or_too_much_in_each_and_any() {
    let item = "an item of `each` goes to a node: begin the branch with a node that has an `input`";
    let cases = [
        (
            quote!(a -> each { b } -> END),
            "expected a function of the state that returns the items: `each items { NODE }`",
        ),
        (quote!(a -> each items -> END), "expected the branch: `each items { NODE }`"),
        (quote!(a -> each items {} -> END), "`each` needs a branch that runs for each item: `each items { NODE }`"),
        (
            quote!(a -> each items { b, c } -> END),
            "`each` has one branch; run several nodes for each item with a group: `each items { { A, B } }`",
        ),
        (quote!(a -> each items { each items { b } } -> END), item),
        (quote!(a -> any {} -> END), "a group needs branches: `{ B, C }`"),
        (
            quote!(a -> any { b, c } { retry: 3 } -> END),
            "a group has the options `on_error` and `label`: `retry` is an option of a node, `node B = b { retry: .. };`",
        ),
        (quote!(a -> if x { b } -> END), "a decision is a `match`: `A -> match router { true => B, false => C }`"),
    ];
    for (input, expected) in cases {
        assert_eq!(mistakes(input.clone()), [expected], "{input}");
    }
}

#[test]
fn what_is_missing_or_too_much_on_an_edge_with_a_value() {
    let only_an_arm = "only an arm of a `match` carries a value: `PATTERN(value) => b(value)`";
    let cases = [
        (quote!(a -> b(x) -> END), only_an_arm),
        (quote!(a -> match r { A => c -> b(x) -> END }), only_an_arm),
        (quote!(a -> match r { A => b() -> END }), "expected the value that the edge carries: `b(value)`, or `b`"),
        (quote!(a -> match r { A => END(x) }), "`END` takes no value"),
        (quote!(a -> { b -> match r { A => JOIN(x) } } -> END), "`JOIN` takes no value"),
    ];
    for (input, expected) in cases {
        assert_eq!(mistakes(input.clone()), [expected], "{input}");
    }
}

#[test]
fn branches_end_at_the_join() {
    let end = "a branch does not end the run: write `JOIN` for the end of the branch, and `END` after the group, \
               `A -> { B, C } -> END`";
    let join = "`JOIN` is the end of a branch of a group: a graph ends with `END`";
    let cases = [
        (quote!(a -> { b -> END, c } -> END), end),
        (quote!(a -> { b -> match r { A => END }, c } -> END), end),
        (quote!(a -> JOIN), join),
        (quote!(a -> match r { A => JOIN }), join),
        (quote!(a -> { b -> JOIN -> c } -> END), "nothing can follow `JOIN`"),
        (quote!(a -> { JOIN, c } -> END), "a branch needs a node before `JOIN`: `{ B -> JOIN, C }`, or `{ B, C }`"),
        (quote!(a -> { b -> c -> b, d } -> END), "nodes `b`, `c` loop forever: no path leads from them to `JOIN`"),
        (quote!(node JOIN = b; a -> JOIN), "`JOIN` is reserved: give the node another name"),
    ];
    for (input, expected) in cases {
        assert_eq!(mistakes(input.clone()), [expected], "{input}");
    }
}

#[test]
fn what_is_missing_or_too_much_in_a_graph_inside() {
    let cases = [
        (quote!(graph), "node `graph` has no outgoing edge; end the graph with `graph -> END`"),
        (quote!(graph X; a -> X -> END), "expected the graph: `graph X { A -> END }`"),
        (quote!(graph { b -> END } a -> END), "expected a name: `graph NAME { A -> END }`"),
        (quote!(graph X {} a -> X -> END), "the graph `X` needs at least one node: `graph X { A -> END }`"),
        (quote!(graph X { b -> } a -> X -> END), "expected a node, `{ .. }`, `match` or `END` after `->`"),
        (quote!(graph X { b } a -> X -> END), "node `b` has no outgoing edge; end the graph with `b -> END`"),
        (
            quote!(graph X { type State = S; b -> END } a -> X -> END),
            "`type` is for the whole graph: write it in the outer graph",
        ),
        (
            quote!(node B = b; graph X { B -> END } a -> X -> B -> END),
            "`B` is bound outside of this graph; bind it inside: `node B = ..;`",
        ),
        (quote!(graph X { X -> END } X -> END), "`X` is bound outside of this graph; bind it inside: `node X = ..;`"),
    ];
    for (input, expected) in cases {
        assert_eq!(mistakes(input.clone()), [expected], "{input}");
    }
    assert_eq!(
        mistakes(quote!(graph X { b } graph Y { graph Z { c -> c } Z -> END } X -> Y -> END)),
        [
            "node `b` has no outgoing edge; end the graph with `b -> END`",
            "node `c` loops forever: no path leads from it to `END`",
        ]
    );
}

#[test]
fn options_of_nodes_that_are_half_written() {
    let fallback = "expected a node that handles the error: `on_error: RECOVER`";
    let cases = [
        (quote!(retry:), "expected a value after `retry:`"),
        (quote!(retry = 3), "expected `:` and a value after `retry`"),
        (quote!(retry: 3, retry: 4), "`retry` is set already"),
        (quote!(3), "expected an option: `KEY: VALUE`"),
        (quote!(on_error), fallback),
        (quote!(on_error:), fallback),
        (quote!(on_error: 3), fallback),
        (quote!(on_error: b c), fallback),
        (
            quote!(on_error: END),
            "`on_error` must name a node, which receives the error: `on_error: RECOVER`, and `RECOVER -> END`",
        ),
    ];
    for (input, expected) in cases {
        assert_eq!(mistakes(quote!(node A = a { #input }; A -> END)), [expected], "{input}");
    }
}

#[test]
fn statements_that_are_half_written() {
    let state = "expected `type State = MyState;`";
    let name = "a graph's name is a string literal: `name = \"support\";`";
    let root = "expected a path: `crate = my_crate::agentflow;`";
    let node = "expected a node: `node X = my_node;`";
    let cases = [
        (quote!(type), state),
        (quote!(type State), state),
        (quote!(type State =), state),
        (quote!(type Foo = Bar), state),
        (quote!(name =), name),
        (quote!(name = 1), name),
        (quote!(name = 'a'), name),
        (quote!(crate =), root),
        (quote!(crate = 1), root),
        (quote!(node X), node),
        (quote!(node X =), node),
        (quote!(node X; a -> END), node),
        (quote!(compile), "expected options: `compile { shutdown_timeout: 30s }`"),
        (quote!(compile { services: }), "expected a value after `services:`"),
        (quote!(compile { services = 1 }), "expected `:` and a value after `services`"),
        (quote!(compile { 1 }), "expected an option: `KEY: VALUE`"),
    ];
    for (input, expected) in cases {
        assert_eq!(mistakes(quote!(#input; a -> END)), [expected], "{input}");
    }
}

#[test]
fn start_and_end() {
    let needs_a_node = "a graph needs a node before `END`: `MAIN -> END`";
    let between = "a graph needs a node between `START` and `END`: `START -> MAIN -> END`";
    let cases = [
        (quote!(), "a graph needs at least one node: `graph! { MAIN -> END }`"),
        (quote!(; ;), "a graph needs at least one node: `graph! { MAIN -> END }`"),
        (quote!(END), needs_a_node),
        (quote!(END -> a), needs_a_node),
        (quote!(START -> END), between),
        (quote!(START; a -> END), "`START` needs a node to start at: `START -> MAIN`"),
        (quote!(a -> START), "`START` can only begin a chain"),
        (quote!(START -> START), "`START` can only begin a chain"),
        (quote!(a -> END -> b), "nothing can follow `END`"),
        (quote!(START -> a -> END; START -> b -> END), "the graph starts at `a` already"),
    ];
    for (input, expected) in cases {
        assert_eq!(mistakes(input.clone())[0], expected, "{input}");
    }
}

#[test]
fn topology() {
    let cases: [(_, &[&str]); 17] = [
        (quote!(a -> b), &["node `b` has no outgoing edge; end the graph with `b -> END`"]),
        (quote!(a), &["node `a` has no outgoing edge; end the graph with `a -> END`"]),
        // Of an unreachable chain only the first node is reported.
        (
            quote!(a -> END; c -> d; d -> match r { A => c, B => END }; b -> c),
            &["node `b` can never run: no path leads to it from `a`"],
        ),
        (quote!(a -> END; b -> c -> b), &["node `b` can never run: no path leads to it from `a`"]),
        (
            quote!(a -> match r { A => b -> a, B => c -> a }),
            &["nodes `a`, `b`, `c` loop forever: no path leads from them to `END`"],
        ),
        (quote!(a -> END; b -> a), &["node `b` can never run: no path leads to it from `a`"]),
        (quote!(a -> b -> c -> b), &["nodes `b`, `c` loop forever: no path leads from them to `END`"]),
        (quote!(a -> a), &["node `a` loops forever: no path leads from it to `END`"]),
        (quote!(a -> b -> END; a -> b), &["duplicate edge `a -> b` (2/2)", "duplicate edge `a -> b` (1/2)"]),
        (quote!(a -> END; a -> END), &["duplicate edge `a -> END` (2/2)", "duplicate edge `a -> END` (1/2)"]),
        (
            quote!(a -> b -> END; a -> c -> END),
            &["`a` has two outgoing edges, `b` and `c`; run both in parallel with `a -> { b, c } -> ..`, \
               or choose one with `a -> match .. { .. }`"],
        ),
        (
            quote!(a -> b -> END; a -> END),
            &["`a` has two outgoing edges, `b` and `END`; choose one with `a -> match .. { .. }`"],
        ),
        (
            quote!(a -> b -> END; a -> match r { A => b }),
            &["`a` leads to `b` already; make that an arm of this `match`"],
        ),
        (
            quote!(a -> match r { A => END }; a -> match r { A => END }),
            &["`a` has a decision already; put these arms into that one"],
        ),
        (quote!(a -> match r { A => b -> END }; a -> b), &["`a` has a decision already; make this an arm of it"]),
        (
            quote!(a -> b -> END; a -> { c, d } -> END),
            &["`a` has two outgoing edges, `b` and `{c, d}`; run both in parallel with `a -> { b, {c, d} } -> ..`, \
               or choose one with `a -> match .. { .. }`"],
        ),
        (
            quote!(m::a -> n::a -> END),
            &["two nodes are named `a`: `m::a` and `n::a`; give one another name: `node OTHER = n::a;`"],
        ),
    ];
    for (input, expected) in cases {
        assert_eq!(mistakes(input.clone()), expected, "{input}");
    }
}

#[test]
fn bindings_are_used_and_have_names_of_their_own() {
    assert_eq!(
        mistakes(quote!(node X = a; node Y = b; c -> END)),
        [
            "node `X` is bound but never used in a chain: write `.. -> X -> ..`",
            "node `Y` is bound but never used in a chain: write `.. -> Y -> ..`",
        ]
    );
    assert_eq!(
        mistakes(quote!(node X = a; node X = b; X -> END)),
        ["`node X` is already defined: give this one another name"]
    );
    // The second binding is not expanded: rustc would report a duplicate type too.
    let output = expand(quote!(node X = a; node X = b; X -> END));
    assert_eq!(unspaced(&output).matches("typeX=").count(), 1, "{output}");
    assert_eq!(
        mistakes(quote!(node START = a; node END = b; c -> END)),
        ["`START` is reserved: give the node another name", "`END` is reserved: give the node another name"]
    );
    assert_eq!(
        mistakes(quote!(
            node X = a
            X -> END;
        )),
        ["expected `;`"]
    );
}

#[test]
fn syntax_comes_before_topology() {
    // `b` has no outgoing edge and `c` is unreachable, but the chains are not yet as the user meant them.
    assert_eq!(mistakes(quote!(a b; c -> END)), ["expected `->` or `;`"]);
    assert_eq!(mistakes(quote!(a -> START; m::b -> n::b -> END)), ["`START` can only begin a chain"]);
    assert_eq!(mistakes(quote!(a -> START; m::b -> END; m::b -> END)), ["`START` can only begin a chain"]);
}

#[test]
fn all_mistakes_of_one_kind_are_found_in_one_go() {
    assert_eq!(mistakes(quote!(type Foo; name = 1; a ->; -> b; c d; node X = ; compile { 1, y: })).len(), 8);
}

#[test]
fn half_typed_graphs_keep_their_mentions_and_their_type() {
    survives("", &[]);
    survives("MAIN", &["MAIN"]);
    survives("MAIN -", &["MAIN"]);
    survives("MAIN ->", &["MAIN"]);
    survives("MAIN -> to", &["MAIN", "to"]);
    survives("MAIN -> bb ->", &["MAIN", "bb"]);
    survives("MAIN -> -> bb", &["MAIN", "bb"]);
    survives("MAIN -> bb; cc -> ; dd -> END", &["MAIN", "bb", "cc", "dd"]);
    survives("MAIN bb -> cc", &["MAIN", "bb", "cc"]);
    survives("MAIN. bb -> cc", &["MAIN", "bb", "cc"]);
    survives("other::", &["other"]);
    survives("MAIN -> other:: -> cc", &["MAIN", "other", "cc"]);
    survives("MAIN -> ::other::", &["MAIN", "::other"]);
    survives("MAIN -> other::<A", &["MAIN", "other::<A>"]);
    survives("MAIN -> other<A<B -> cc", &["MAIN", "other::<A<B>>", "cc"]);
    survives("MAIN -> EN", &["MAIN", "EN"]);
    survives("STAR", &["STAR"]);
    survives("START ->", &["::agentflow::START"]);
    survives("node", &["node"]);
    survives("node X", &[]);
    survives("node X = ", &[]);
    survives("node X = to", &["to"]);
    survives("node X = to; X ->", &["to", "X"]);
    survives("node X = other::", &["other"]);
}

/// Asserts that the part for the editor contains these tokens.
#[track_caller]
fn hints(output: &TokenStream, hints: &[&str]) {
    let output = unspaced(output);
    let (_, hidden) = output.split_once("#[cfg(rust_analyzer)]{").expect("the editor's part");
    for hint in hints {
        assert!(hidden.contains(&unspaced(hint)), "{hint}: {hidden}");
    }
}

#[test]
fn half_typed_decisions_keep_their_mentions_routers_and_patterns() {
    // The wildcard keeps rustc from reporting missing arms here, in addition to the decision itself.
    let rest = |arms: &str| format!("_ => ({}usize),", arms.matches("=>").count());
    let match_ = |router: &str, arms: &str| format!("match ({router}) (* (& __state)) {{ {arms} {} }}", rest(arms));
    hints(&survives("A -> match ", &["A"]), &["match (__af::itself) (__returned) { _ => (0usize), }"]);
    hints(&survives("A -> match r", &["A"]), &[&match_("r", "")]);
    hints(&survives("A -> match r::", &["A"]), &[&match_("r", "")]);
    hints(&survives("A -> match r {}", &["A"]), &[&match_("r", "")]);
    hints(&survives("A -> match r { S }", &["A"]), &[&match_("r", "S => (0usize),")]);
    hints(&survives("A -> match r { Step:: }", &["A"]), &[&match_("r", "Step { .. } => (0usize),")]);
    hints(&survives("A -> match r { Step::A => }", &["A"]), &[&match_("r", "Step::A => (0usize),")]);
    hints(&survives("A -> match r { Step::A => b -> }", &["A", "b"]), &[&match_("r", "Step::A => (0usize),")]);
    hints(
        &survives("A -> match r { Step::A => b -> , Step::B if x => other:: }", &["A", "b"]),
        &[&match_("r", "Step::A => (0usize), Step::B if x => (1usize),"), "let _: (other);"],
    );
    hints(
        &survives("A -> match { Step:: => b, C => c -> match s { D:: } } ", &["A", "b", "c"]),
        &[
            "match (__af::itself) (__returned) { Step { .. } => (0usize), C => (1usize), _ => (2usize), }",
            &match_("s", "D { .. } => (0usize),"),
        ],
    );
    hints(
        &survives("A -> B; graph X { c -> match r { D:: } }", &["A", "B", "c"]),
        &[&match_("r", "D { .. } => (0usize),")],
    );
    // The hints are the same if only the topology is wrong.
    hints(&survives("A -> match r { Step::A => b }", &["A", "b"]), &[&match_("r", "Step::A => (0usize),")]);
}

#[test]
fn half_typed_groups_and_graphs_keep_their_mentions() {
    survives("A -> {}", &["A"]);
    survives("A -> { B, }", &["A", "B"]);
    survives("A -> { B, C -> }", &["A", "B", "C"]);
    survives("A -> { B, C -> } -> D", &["A", "B", "C", "D"]);
    survives("A -> { B, other:: }", &["A", "B"]);
    survives("A { B }", &["A", "B"]);
    survives("graph", &["graph"]);
    survives("graph X", &[]);
    survives("graph X {}", &[]);
    survives("graph X { B -> } A -> X -> ", &["B", "A", "X"]);
    survives("graph { B -> C } A", &["B", "C", "A"]);
    let output = survives("node X = a { re }; X ->", &["a", "X"]);
    assert!(!contains(&output, "set_node_options"), "{output}");
    survives("node X = a { on_error: }; X -> END", &["a", "X"]);
    survives("node X = a { on_error: re }; X -> END", &["a", "re", "X"]);
    survives("A -> each", &["A", "each"]);
    survives("A -> each B", &["A"]);
    hints(&survives("A -> each topics { B -> } -> C", &["A", "B", "C"]), &["let _ = topics;"]);
    hints(&keeps("A -> each state. { B } -> C", &["A", "B", "C"]), &["let _ = state;"]);
    hints(&survives("A -> each t { max_ } { B }", &["A", "B"]), &["EachOptions::new().max_"]);
    survives("A -> any { B, } -> ", &["A", "B"]);
    hints(&survives("A -> any { B, C } { on_err }", &["A", "B", "C"]), &["NodeOptions::new().on_err"]);
    hints(
        &keeps("A -> match r { S::T(calls) => B(calls.) -> }", &["A", "B"]),
        &["S::T(calls) => ({ let _ = calls; 0usize }),"],
    );
    survives("A -> { B -> match r { X => JO } }", &["A", "B", "JO"]);
    survives("A -> if", &["A"]);
}

#[test]
fn half_typed_headers_and_options_keep_what_is_there() {
    let output = survives("type State = Ag; MAIN -> ", &["MAIN"]);
    assert!(contains(&output, "__of::<Ag>()"), "{output}");
    let output = survives("MAIN -> ; compile { shut }", &["MAIN"]);
    assert!(contains(&output, "CompileOptions::new().shut"), "{output}");
    let output = survives("MAIN -> ; compile { shutdown_timeout: }", &["MAIN"]);
    assert!(contains(&output, ".shutdown_timeout(__af::missing())"), "{output}");
    let output = keeps("MAIN -> ; compile { shutdown_timeout: Duration:: , recursion_limit: 3 }", &["MAIN"]);
    assert!(contains(&output, ".recursion_limit(3)"), "{output}");
    let output = keeps("MAIN -> ; compile { services: services. }", &["MAIN"]);
    assert!(contains(&output, ".services(services.)"), "{output}");
}

/// rust-analyzer finds its marker in the expansion of the marked text, and gives up if that position is beyond the end
/// of the expansion without the marker.
#[test]
fn the_editors_marker_is_found_before_the_end_of_the_expansion_without_it() {
    let text = |input: &str| expand(input.parse().expect("tokens")).to_string();
    for (half, marked) in [
        ("MAIN ->", "MAIN -> marker"),
        ("MAIN -> END;", "MAIN -> END; marker"),
        ("MAIN -> to", "MAIN -> tomarker"),
        ("MAIN -> to -> END", "MAIN -> tomarker -> END"),
        ("MAIN -> other::", "MAIN -> other::marker"),
        ("a -> match", "a -> match marker"),
        ("a -> match r", "a -> match rmarker"),
        ("a -> match r {}", "a -> match r { marker }"),
        ("a -> match r { Step:: }", "a -> match r { Step::marker }"),
        ("a -> match r { Step::A => }", "a -> match r { Step::A => marker }"),
        ("a -> match r { Step::A => b, }", "a -> match r { Step::A => b, marker }"),
        ("a -> {}", "a -> { marker }"),
        ("a -> { b, } -> c", "a -> { b, marker } -> c"),
        ("graph X {} a -> X -> END", "graph X { marker } a -> X -> END"),
        ("node X = a {}; X -> END", "node X = a { marker }; X -> END"),
        ("node X = a { on_error: }; X -> END", "node X = a { on_error: marker }; X -> END"),
        ("", "marker"),
        ("node X =", "node X = marker"),
        ("type State = ; MAIN ->", "type State = marker; MAIN ->"),
        ("a -> END; compile {}", "a -> END; compile { marker }"),
    ] {
        let found = text(marked).find("marker").expect("the marker");
        assert!(found < text(half).len(), "{half}");
    }
}

const GRAPHS: &[&str] = &[
    "MAIN -> END",
    "type State = S<T>; name = \"n\"; START -> a -> b::c; node X = ask::<A<B>>; b::c -> X -> END; \
     compile { shutdown_timeout: 1.5s, recursion_limit: 3 }",
    "a -> match next { S::A { x, .. } if x > 1 => b -> { c, d -> { e, f } } -> a, S::B(_) | S::C => END, }; \
     node X = a { retry: 3, on_error: b };",
    "graph G { node X = x { timeout: 1s }; X -> match { true => END, false => X } } a -> G -> { b, c } -> END; \
     START -> a",
    "crate = x::y; node V = f(1); node W = (v); V -> W -> a; a -> END; compile { services: c }",
];

const WORDS: &[&str] = &[
    "a",
    "b",
    "END",
    "START",
    "->",
    "-",
    ">",
    "<",
    ";",
    ",",
    "::",
    ":",
    "node",
    "node X =",
    "graph",
    "graph G",
    "compile",
    "compile {}",
    "match",
    "match {}",
    "match r { A => b, B => END }",
    "match { true => a }",
    "{ b, c }",
    "on_error",
    "on_error: b",
    "retry: 3",
    "if x",
    "S::",
    "graph G { a -> b }",
    "=>",
    "type",
    "State",
    "=",
    "name",
    "crate",
    "{}",
    "()",
    "[]",
    "30s",
    "1.5x",
    "\"n\"",
    "1",
    "'a",
    "'c'",
    "|",
    "&",
    "#",
    "$",
    "..",
    "_",
    "r#fn",
    "self",
    "super",
    "each",
    "each items { b }",
    "each items { max_parallel: 3 } { b -> c }",
    "any",
    "any { a, b }",
    "JOIN",
    "b(x)",
    "if",
    "else",
    "fn",
    ".",
    "?",
];

proptest! {
    #![proptest_config(quick())]

    #[test]
    fn whatever_is_written_the_type_stays(input in soup(GRAPHS, WORDS)) {
        let output = expand(input.clone());
        let is_wrong = !testing::mistakes(output.clone()).is_empty();
        let finish = if is_wrong { "__af :: poisoned (__g , __options)" } else { "__af :: compiled (__g , __options)" };
        prop_assert!(contains(&output, finish), "{}\n{}", input, output);
        prop_assert!(!lexes(&input) || lexes(&output), "{}\n{}", input, output);
        // One block is an expression, even if the user's expressions inside do not parse.
        let trees: Vec<_> = output.into_iter().collect();
        prop_assert!(matches!(&trees[..], [proc_macro2::TokenTree::Group(_)]));
    }

    #[test]
    fn whatever_is_written_every_name_in_a_chain_is_mentioned(
        input in soup(&["aa -> bb -> cc; dd -> ee::ff -> END"], &["gg", "->", ";", ",", "::", "hh", "END", "=", "?", "1"])
    ) {
        let output = expand(input.clone());
        prop_assert!(pretty_expression(&output).len() > 1);
        let names = input.clone().into_iter().filter_map(|token| match token {
            proc_macro2::TokenTree::Ident(name) if name != "END" => Some(name.to_string()),
            _ => None,
        });
        for name in names {
            let is_mentioned = unspaced(&output).split("let_:(").skip(1).any(|mention| {
                mention.split(')').next().is_some_and(|path| path.split(':').any(|segment| segment == name))
            });
            prop_assert!(is_mentioned, "{}: {}\n{}", name, input, output);
        }
    }
}

/// Each name is mentioned a fixed number of times, independent of the number of mistakes that depend on it.
#[test]
fn the_expansion_grows_linearly_with_nodes_and_mistakes() {
    let mentions = |nodes: usize| {
        // All nodes except the first are unreachable.
        let input = (0..nodes).map(|node| format!("N{node} -> END;")).collect::<Vec<_>>().concat();
        let output = expand(input.parse().expect("tokens"));
        assert_eq!(testing::mistakes(output.clone()).len(), (nodes - 1).min(10));
        unspaced(&output).matches("let_:(N").count()
    };
    let small = mentions(20);
    assert!(small > 0);
    assert_eq!(mentions(40), 2 * small);
}

#[test]
fn items_may_be_a_closure_with_a_body_or_have_several_generic_arguments() {
    for items in ["|s: &S| { s.items() }", "|s: &S| -> Vec<u8> { vec![] }", "two::<A, B>", "|s: &S| s.map(|x| { x })"] {
        for options in ["", "{ max_parallel: 2 }"] {
            let input = format!("a -> each {items} {options} {{ b }} -> END");
            assert_eq!(mistakes(input.parse().expect("tokens")), [""; 0], "{input}");
        }
    }
}

#[test]
fn an_each_whose_branch_is_forgotten_or_whose_option_is_given_twice_is_one_mistake() {
    let only = |input: &str| match &mistakes(input.parse().expect("tokens"))[..] {
        [mistake] => mistake.clone(),
        mistakes => panic!("{input}: {mistakes:?}"),
    };
    let branch = "expected the branch: `each words { NODE }`";
    assert_eq!(only("a -> each words { max_parallel: 3 } -> END"), branch);
    let twice = "a -> each words { max_parallel: 3 } { b } { max_parallel: 4 } -> END";
    assert_eq!(only(twice), "`max_parallel` is set already");
    let twice = "a -> each words { on_error: c } { b } { on_error: d } -> END; c -> END; d -> END";
    assert_eq!(only(twice), "`on_error` is set already");
}
