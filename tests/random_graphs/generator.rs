//! Random programs that compile.
//!
//! All durations are even, so that a cancel at an odd instant never meets anything else. Run timeouts are not of the form
//! `4n + 1`, which is that of the cancels.

use proptest::{option, prelude::*, sample::select};

use super::program::{
    Access, Act, ActEnd, Branch, Decision, Formula, Graph, Group, GroupKind, Items, MapPanic, Mapped, Next, Options,
    ParallelWork, Program, Retry, Script, Step, When, Work, repair,
};

/// The number of graphs or groups that may be inside each other.
const DEPTH: u32 = 2;

pub(super) fn program() -> impl Strategy<Value = Program> {
    let run_timeout =
        option::weighted(0.2, (1..6_000_u64).prop_map(|millis| if millis % 4 == 1 { millis + 1 } else { millis }));
    (graph(DEPTH), option::weighted(0.3, 1..16_usize), run_timeout).prop_map(|(graph, recursion_limit, run_timeout)| {
        let mut graph = Graph { recursion_limit, ..graph };
        graph.name_steps();
        Program { graph, run_timeout }
    })
}

/// Returns an instant before, at or after the end of a run of this length.
pub(super) fn cancel_instant(elapsed: u64, thousandths: u64) -> u64 {
    elapsed * thousandths / 1_000 / 4 * 4 + 1
}

pub(super) fn graph(depth: u32) -> BoxedStrategy<Graph> {
    let steps = prop::collection::vec(step(depth), 1..6);
    (steps, option::weighted(0.15, 1..8_usize))
        .prop_map(|(steps, recursion_limit)| {
            let mut steps = repair(wire(steps));
            take_inputs(&mut steps, false);
            Graph { steps, recursion_limit }
        })
        .boxed()
}

/// Maps the random targets to steps that exist. The target after the last step is the end.
fn wire<W>(mut steps: Vec<Step<W>>) -> Vec<Step<W>> {
    let count = steps.len();
    let place = |to: Option<usize>| to.map(|to| to % (count + 1)).filter(|to| *to < count);
    for (index, step) in steps.iter_mut().enumerate() {
        step.on_error = place(step.on_error).filter(|fallback| *fallback != index);
        match &mut step.next {
            // An edge prefers the next step, or most steps would be unreachable.
            Next::Edge(to) => *to = place(to.map(|to| if to < 160 { index + 1 } else { to })),
            Next::Decision(decision) => {
                let arms = decision.arms.iter().enumerate();
                decision.arms = arms
                    .map(|(arm, to)| place(to.map(|to| if arm == 0 && to < 160 { index + 1 } else { to })))
                    .collect();
            }
        }
    }
    steps
}

/// The work of a step that may take an input.
trait TakesInput {
    fn can_take(&self) -> bool;

    /// Hands the input on to the steps inside.
    fn take(&mut self, takes_input: bool);

    /// A node that takes any input.
    fn taker() -> Self;
}

impl TakesInput for Work {
    fn can_take(&self) -> bool {
        match self {
            Self::Node(access, _) => *access != Access::Owning,
            Self::Group(group) => group.can_take(),
            Self::Graph(_) | Self::Mapped(_) => false,
        }
    }

    fn take(&mut self, takes_input: bool) {
        if let Self::Group(group) = self {
            group.take(takes_input);
        }
    }

    fn taker() -> Self {
        Self::Node(Access::Reading, simple_script())
    }
}

impl TakesInput for ParallelWork {
    fn can_take(&self) -> bool {
        match self {
            Self::Node(_) => true,
            Self::Group(group) => group.can_take(),
            Self::Mapped(_) => false,
        }
    }

    fn take(&mut self, takes_input: bool) {
        if let Self::Group(group) = self {
            group.take(takes_input);
        }
    }

    fn taker() -> Self {
        Self::Node(simple_script())
    }
}

impl Group {
    fn can_take(&self) -> bool {
        !matches!(self.kind, GroupKind::Each(_)) && self.branches.iter().all(|branch| branch[0].work.can_take())
    }

    fn take(&mut self, takes_input: bool) {
        for branch in &mut self.branches {
            take_inputs(branch, takes_input || matches!(self.kind, GroupKind::Each(_)));
        }
    }
}

fn simple_script() -> Script {
    let act = Act { events: 0, wait: 4, adds: 1, sets_title: false, is_poisoned: false, end: ActEnd::Succeeds };
    Script { acts: vec![act] }
}

/// Gives an input to the first step of a path, or not, and to all others that only arms lead to.
fn take_inputs<W: TakesInput + Clone>(steps: &mut Vec<Step<W>>, first_takes: bool) {
    if first_takes {
        if !steps[0].work.can_take() {
            for step in steps.iter_mut() {
                step.map_targets(|to| Some(to + 1));
            }
            steps.insert(0, Step::new(W::taker(), Options::default(), None, Next::Edge(Some(1))));
        }
        for step in steps.iter_mut().filter(|step| step.leads_plainly_to(0)) {
            step.map_targets(|to| Some(to).filter(|to| *to > 0));
        }
        *steps = repair(std::mem::take(steps));
    }
    for index in 0..steps.len() {
        let is_led_plainly = steps.iter().any(|step| step.leads_plainly_to(index));
        let takes = if index == 0 { first_takes } else { !is_led_plainly && steps[index].work.can_take() };
        steps[index].takes_input = takes;
        steps[index].work.take(takes);
    }
}

fn step(depth: u32) -> BoxedStrategy<Step> {
    let access = select(vec![Access::InPlace, Access::Reading, Access::Owning]);
    let node = (access, script(true)).prop_map(|(access, script)| Work::Node(access, script)).boxed();
    let work = if depth == 0 {
        node
    } else {
        prop_oneof![
            6 => node,
            1 => graph(depth - 1).prop_map(Work::Graph),
            1 => mapped(depth - 1).prop_map(Work::Mapped),
            4 => group(depth - 1).prop_map(Work::Group),
        ]
        .boxed()
    };
    (work, options(), option::weighted(0.4, target()), next())
        .prop_map(|(work, options, on_error, mut next)| {
            let is_group = matches!(work, Work::Group(_));
            let options = if is_group { Options::default() } else { options };
            // A node with access in place may have changed the state before a timeout of zero.
            let begins = !matches!(work, Work::Node(Access::InPlace, _) | Work::Graph(_));
            let timeout = options.timeout.map(|timeout| if begins { timeout } else { timeout.max(2) });
            if let Next::Decision(decision) = &mut next {
                decision.is_from_node &= matches!(work, Work::Node(..));
            }
            Step::new(work, Options { timeout, ..options }, on_error, next)
        })
        .boxed()
}

/// A target before it is mapped to a step.
fn target() -> impl Strategy<Value = usize> {
    0..256_usize
}

fn next() -> impl Strategy<Value = Next> {
    let formula = (1..4_u32, 0..3_u32, option::weighted(0.05, 0..3_u32));
    let decision = (any::<bool>(), formula, prop::collection::vec(target(), 3), prop::bool::weighted(0.1)).prop_map(
        |(is_from_node, (routes, offset, panics_at), targets, lacks_arm)| {
            let arms = if lacks_arm { (routes as usize - 1).max(1) } else { routes as usize };
            let arms = targets.into_iter().take(arms).map(Some).collect();
            Next::Decision(Decision { is_from_node, formula: Formula { routes, offset, panics_at }, arms })
        },
    );
    prop_oneof![3 => target().prop_map(|to| Next::Edge(Some(to))), 2 => decision]
}

fn mapped(depth: u32) -> impl Strategy<Value = Mapped> {
    let panics = option::weighted(0.05, select(vec![MapPanic::Into, MapPanic::Back]));
    (graph(depth), panics).prop_map(|(graph, panics)| Mapped { graph: without_cancels(graph), panics })
}

/// A group, whose nodes do not cancel the run: that would stop the other branches at an instant that depends on them.
fn group(depth: u32) -> BoxedStrategy<Group> {
    let items = (1..6_u32, 0..6_u32, option::weighted(0.1, 0..6_u32), option::weighted(0.5, 0..4_usize)).prop_flat_map(
        |(counts, offset, panics_at, max_parallel)| {
            option::weighted(0.15, 0..6_usize).prop_map(move |max_items| Items {
                counts,
                offset,
                panics_at,
                max_parallel,
                max_items,
            })
        },
    );
    let kind = prop_oneof![
        3 => Just(GroupKind::All),
        2 => Just(GroupKind::Any),
        3 => items.prop_map(GroupKind::Each),
    ];
    (kind, prop::collection::vec(branch(depth), 1..4))
        .prop_map(|(kind, mut branches)| {
            if matches!(kind, GroupKind::Each(_)) {
                branches.truncate(1);
            }
            Group { kind, branches }
        })
        .boxed()
}

fn branch(depth: u32) -> impl Strategy<Value = Branch> {
    let node = script(false).prop_map(ParallelWork::Node).boxed();
    let work = if depth == 0 {
        node
    } else {
        prop_oneof![
            6 => node,
            1 => mapped(depth - 1).prop_map(ParallelWork::Mapped),
            1 => group(depth - 1).prop_map(ParallelWork::Group),
        ]
        .boxed()
    };
    let step =
        (work, options(), option::weighted(0.3, target()), next()).prop_map(|(work, options, on_error, mut next)| {
            let options = if matches!(work, ParallelWork::Group(_)) { Options::default() } else { options };
            if let Next::Decision(decision) = &mut next {
                decision.is_from_node &= matches!(work, ParallelWork::Node(_));
            }
            Step::new(work, options, on_error, next)
        });
    prop::collection::vec(step, 1..4).prop_map(|steps| repair(wire(steps)))
}

pub(super) fn without_cancels(mut graph: Graph) -> Graph {
    for step in &mut graph.steps {
        match &mut step.work {
            Work::Node(_, script) => {
                for act in &mut script.acts {
                    if act.end == ActEnd::Cancels {
                        act.end = ActEnd::Succeeds;
                    }
                }
            }
            Work::Graph(inner) => *inner = without_cancels(inner.clone()),
            Work::Mapped(_) | Work::Group(_) => {}
        }
    }
    graph
}

fn script(is_sequential: bool) -> impl Strategy<Value = Script> {
    prop::collection::vec(act(is_sequential), 1..4).prop_map(|acts| Script { acts })
}

fn act(is_sequential: bool) -> impl Strategy<Value = Act> {
    // The numbers that fill the channel of a stream.
    let events = prop_oneof![8 => Just(0), 2 => 1..4_u32, 1 => select(vec![61, 125])];
    let wait = prop_oneof![2 => Just(0), 3 => even(2, 600)];
    let end = prop_oneof![
        24 => Just(ActEnd::Succeeds),
        3 => Just(ActEnd::Fails),
        1 => Just(ActEnd::Panics),
        1 => Just(ActEnd::Cancels),
    ];
    (events, wait, 0..4_u32, prop::bool::weighted(0.12), prop::bool::weighted(0.02), end).prop_map(
        move |(events, wait, adds, sets_title, is_poisoned, end)| {
            let events = if is_sequential { events } else { events.min(3) };
            let end = if end == ActEnd::Cancels && !is_sequential { ActEnd::Succeeds } else { end };
            Act { events, wait, adds, sets_title, is_poisoned, end }
        },
    )
}

fn options() -> impl Strategy<Value = Options> {
    let when = prop_oneof![6 => Just(When::Always), 2 => Just(When::Panics), 1 => Just(When::Faulty)];
    let retry = (
        0..4_u32,
        option::weighted(0.6, even(2, 300)),
        option::weighted(0.3, even(2, 400)),
        option::weighted(0.2, even(0, 3_000)),
        when,
    )
        .prop_map(|(retries, backoff, max_delay, max_total, when)| Retry {
            retries,
            backoff,
            max_delay,
            max_total,
            when,
        });
    let timeout = prop_oneof![1 => Just(0), 15 => even(2, 1_200)];
    (option::weighted(0.3, retry), option::weighted(0.2, timeout))
        .prop_map(|(retry, timeout)| Options { retry, timeout })
}

fn even(min: u64, max: u64) -> impl Strategy<Value = u64> {
    (min / 2..=max / 2).prop_map(|half| half * 2)
}
