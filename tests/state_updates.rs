//! `#[derive(State)]`: the effect of an update on a state.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use agentflow::{AgentState, Message, State, state::FieldChange};
use proptest::prelude::*;

#[derive(Clone, Debug, Default, PartialEq, State)]
struct Report {
    title: String,
    pages: u64,
    editor: Option<String>,
    #[state(append)]
    notes: Vec<String>,
    #[state(append)]
    scores: Vec<f32>,
    #[state(with = longest)]
    summary: String,
    #[state(with = remember)]
    calls: Vec<&'static str>,
}

fn longest(old: &mut String, new: String) {
    if new.len() > old.len() {
        *old = new;
    }
}

fn remember(old: &mut Vec<&'static str>, new: Vec<&'static str>) {
    old.push("call");
    old.extend(new);
}

fn after(update: ReportUpdate) -> Report {
    let mut report = Report {
        title: "Owls".into(),
        pages: 2,
        notes: vec!["old".into()],
        summary: "Birds.".into(),
        ..Report::default()
    };
    report.apply(update);
    report
}

#[test]
fn a_field_that_an_update_does_not_set_stays_as_it_is() {
    assert_eq!(after(Report::update()), after(ReportUpdate::default()));
    let report = after(Report::update().pages(3));
    assert_eq!((report.title.as_str(), report.pages), ("Owls", 3));
    assert_eq!((report.notes.as_slice(), report.summary.as_str()), (["old".to_owned()].as_slice(), "Birds."));
    assert_eq!(report.calls, [""; 0]);
}

#[test]
fn a_plain_field_is_replaced_by_the_last_value_set() {
    let report = after(Report::update().title("Eagles").title("Hawks").editor("Ada".to_owned()));
    assert_eq!((report.title.as_str(), report.editor.as_deref()), ("Hawks", Some("Ada")));
    assert_eq!(after(Report::update().editor("Ada".to_owned()).editor(None)).editor, None);
}

#[derive(Clone, Debug, Default, PartialEq, State)]
struct Profile {
    tags: Vec<String>,
    seen: BTreeSet<u32>,
    aliases: std::collections::HashMap<String, String>,
    nickname: Option<String>,
    age: Option<u8>,
    extra: Option<serde_json::Value>,
    #[state(messages)]
    chat: Vec<Message>,
}

#[test]
fn a_replaced_collection_takes_what_an_append_field_takes() {
    let mut profile = Profile::default();
    profile.apply(Profile::update().tags(["a", "b"]).seen([1, 2]).aliases([("x".to_owned(), "y".to_owned())]));
    assert_eq!((profile.tags.len(), profile.seen.len(), profile.aliases.len()), (2, 2, 1));
    profile.apply(Profile::update().tags(vec!["c".to_owned()]).seen(BTreeSet::from([3])));
    assert_eq!((profile.tags.as_slice(), profile.seen), (["c".to_owned()].as_slice(), BTreeSet::from([3])));
    profile.tags.clear();
}

#[test]
fn an_optional_field_takes_a_value_or_an_option() {
    let mut profile = Profile::default();
    profile.apply(Profile::update().nickname("ada").age(36).extra(serde_json::json!(1)));
    assert_eq!((profile.nickname.as_deref(), profile.age), (Some("ada"), Some(36)));
    profile.apply(Profile::update().nickname("Ada".to_owned()).age(Some(37)).extra(Some(serde_json::json!(2))));
    assert_eq!((profile.nickname.as_deref(), profile.age), (Some("Ada"), Some(37)));
    profile.apply(Profile::update().nickname(Some("A.".to_owned())));
    assert_eq!(profile.nickname.as_deref(), Some("A."));
    profile.apply(Profile::update().nickname(None).age(None).extra(None));
    assert_eq!((profile.nickname, profile.age, profile.extra), (None, None, None));
}

#[test]
fn messages_of_any_state_merge_by_id() {
    let draft = Message::assistant("In");
    let answer = Message::assistant("In trees.").with_id(draft.id.clone());
    let mut profile = Profile::default();
    profile.apply(Profile::update().chat([Message::user("Where?"), draft]));
    profile.apply(Profile::update().chat([answer]).chat(vec![Message::user("Why?")]));
    let texts: Vec<_> = profile.chat.iter().map(Message::text).collect();
    assert_eq!(texts, ["Where?", "In trees.", "Why?"]);
    assert!(!Profile::changes(&Profile::update().chat([Message::user("x")]))[0].replaces);
}

#[test]
fn append_keeps_existing_values_and_the_order_of_calls() {
    let report = after(Report::update().notes(["a", "b"]).notes(vec!["c".to_owned()]).notes(None::<&str>));
    assert_eq!(report.notes, ["old", "a", "b", "c"]);
}

#[test]
fn numbers_need_no_suffix() {
    assert_eq!(after(Report::update().scores([1.5, 2.0])).scores, [1.5, 2.0]);
}

#[test]
fn a_function_merges_each_value_that_is_set() {
    assert_eq!(after(Report::update().summary("Birds")).summary, "Birds.");
    assert_eq!(after(Report::update().summary("Birds of prey.").summary("Owls.")).summary, "Birds of prey.");
    assert_eq!(after(Report::update().calls(["a"]).calls(["b"])).calls, ["call", "a", "call", "b"]);
}

#[test]
fn every_collection_can_be_appended_to() {
    #[derive(Clone, Default, State)]
    struct Collections {
        #[state(append)]
        queue: VecDeque<String>,
        #[state(append)]
        words: HashMap<String, u32>,
        #[state(append)]
        tags: BTreeSet<Arc<str>>,
    }

    let mut state = Collections::default();
    for round in [1, 2] {
        let update = Collections::update().queue(["q"]).words([("owl".to_owned(), round)]).tags(["x", "y"]);
        state.apply(update);
    }
    assert_eq!(state.queue, ["q", "q"]);
    assert_eq!(state.words, HashMap::from([("owl".to_owned(), 2)]));
    assert_eq!(state.tags.len(), 2);
}

#[test]
fn changes_report_each_set_field_and_whether_it_is_replaced() {
    assert_eq!(Report::changes(&Report::update()), []);
    let update = Report::update().pages(1).notes(["a"]).summary("s").title("t");
    let replaced = |field| FieldChange::new(field, true);
    let merged = |field| FieldChange::new(field, false);
    let changes = [replaced("title"), replaced("pages"), merged("notes"), merged("summary")];
    assert_eq!(Report::changes(&update), changes);
}

#[test]
fn a_raw_field_name_is_reported_without_its_prefix() {
    #[derive(Clone, State)]
    struct Raw {
        r#type: String,
    }

    let mut raw = Raw { r#type: String::new() };
    let update = Raw::update().r#type("owl");
    assert_eq!(Raw::changes(&update), [FieldChange::new("type", true)]);
    raw.apply(update);
    assert_eq!(raw.r#type, "owl");
}

#[test]
fn an_update_prints_the_fields_that_it_sets_but_not_their_values() {
    #[derive(Clone, State)]
    struct Secret {
        key: NotDebug,
        other: NotDebug,
    }

    #[derive(Clone)]
    struct NotDebug;

    assert_eq!(format!("{:?}", Secret::update().key(NotDebug)), "SecretUpdate { key: .. }");
    let _ = Secret { key: NotDebug, other: NotDebug }.other;
}

#[test]
fn a_generic_struct_is_a_state() {
    #[derive(Clone, State)]
    struct Best<T: Ord> {
        #[state(with = greater)]
        best: T,
        #[state(append)]
        all: Vec<T>,
    }

    fn greater<T: Ord>(old: &mut T, new: T) {
        if new > *old {
            *old = new;
        }
    }

    fn applied<S: State>(mut state: S, update: S::Update) -> S {
        state.apply(update);
        state
    }

    let best = applied(Best { best: "b", all: vec!["b"] }, Best::update().best("c").best("a").all(["c", "a"]));
    assert_eq!((best.best, best.all), ("c", vec!["b", "c", "a"]));
}

#[derive(Clone, Debug)]
enum Change {
    Title(String),
    Notes(Vec<String>),
    Summary(String),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        "[a-z]{0,4}".prop_map(Change::Title),
        prop::collection::vec("[a-z]{0,2}", 0..3).prop_map(Change::Notes),
        "[a-z]{0,9}".prop_map(Change::Summary),
    ];
    prop::collection::vec(change, 0..12)
}

fn set(update: ReportUpdate, change: Change) -> ReportUpdate {
    match change {
        Change::Title(title) => update.title(title),
        Change::Notes(notes) => update.notes(notes),
        Change::Summary(summary) => update.summary(summary),
    }
}

proptest! {
    #[test]
    fn one_update_is_equivalent_to_one_update_per_change(changes in changes()) {
        let all = changes.iter().cloned().fold(Report::update(), set);
        let mut at_once = Report::default();
        at_once.apply(all);

        let mut one_by_one = Report::default();
        for change in changes {
            one_by_one.apply(set(Report::update(), change));
        }
        prop_assert_eq!(at_once, one_by_one);
    }
}

#[test]
fn an_update_is_written_and_read_as_the_fields_that_it_sets() {
    let update = AgentState::update().context([Message::user("hi")]).context([Message::assistant("hello")]);
    let mut json = serde_json::to_value(&update).unwrap();
    assert_eq!(json.as_object().unwrap().keys().collect::<Vec<_>>(), ["context"]);
    json["unknown"] = true.into();

    let mut state = AgentState::default();
    state.context_summary = Some("kept".into());
    state.apply(serde_json::from_value(json).unwrap());
    assert_eq!(state.context.iter().map(Message::text).collect::<Vec<_>>(), ["hi", "hello"]);
    assert_eq!(state.context_summary.as_deref(), Some("kept"));

    state.apply(serde_json::from_str(r#"{"context_summary": null}"#).unwrap());
    assert_eq!(state.context_summary, None);
}
