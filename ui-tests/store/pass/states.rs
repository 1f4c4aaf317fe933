//! States whose updates are data, in every form.
#![deny(warnings, unused_lifetimes)]

use std::collections::BTreeMap;

use agentflow::State;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, State)]
#[serde(rename_all = "camelCase")]
struct Report {
    sub_title: String,
    #[serde(rename = "n")]
    #[state(append)]
    notes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    summary: Option<String>,
    #[serde(skip)]
    cache: u8,
    #[state(with = longest)]
    longest: String,
    r#type: BTreeMap<u8, bool>,
}

fn longest(old: &mut String, new: String) {
    if new.len() > old.len() {
        *old = new;
    }
}

#[derive(Clone, Serialize, Deserialize, State)]
struct Tree<T: Ord, const N: usize = 1>
where
    T: Copy,
{
    leaves: Vec<T>,
    inner: Vec<Tree<T, N>>,
}

#[derive(Clone, State)]
struct NotSerde {
    socket: Socket,
}

#[derive(Clone)]
struct Socket;

#[derive(Clone, Serialize, Deserialize, State)]
#[state(not_stored)]
struct Flat {
    #[serde(flatten)]
    report: Report,
}

#[derive(Clone, Serialize, Deserialize, State)]
struct Empty {}

#[derive(Clone, Serialize, Deserialize, State)]
#[state(version = 3, migrate = migrations::older)]
struct Versioned {
    to: String,
}

mod migrations {
    pub fn older(state: serde_json::Value, _version: u32) -> Result<serde_json::Value, &'static str> {
        Ok(state)
    }
}

fn again<U: Serialize + DeserializeOwned>(update: &U) -> (Value, U) {
    let json = serde_json::to_value(update).unwrap();
    let again = serde_json::from_str(&json.to_string()).unwrap();
    (json, again)
}

fn main() {
    let update = Report::update().sub_title("Owls").notes(["a"]).summary(None::<String>).cache(7).longest("x");
    let (json, update) = again(&update);
    assert_eq!(json, json!({"subTitle": "Owls", "n": ["a"], "summary": null, "longest": "x"}));
    let mut report = Report { summary: Some("old".into()), ..Report::default() };
    report.apply(update);
    let expected = Report { sub_title: "Owls".into(), notes: vec!["a".into()], longest: "x".into(), ..Report::default() };
    assert_eq!(report, expected);

    let (json, _) = again(&Report::update().r#type([(1, true)]).longest("a").longest("bc"));
    assert_eq!(json, json!({"type": {"1": true}, "longest": {"$values": ["a", "bc"]}}));

    let tree = Tree { leaves: vec![1_u8], inner: Vec::new() };
    let (json, _) = again(&Tree::<u8>::update().inner([tree]));
    assert_eq!(json, json!({"inner": [{"leaves": [1], "inner": []}]}));

    let (json, _) = again(&Empty::update());
    assert_eq!(json, json!({}));
    let _ = NotSerde::update().socket(Socket);
    let _ = Flat::update().report(Report::default());
    let _ = Versioned::update().to("ada");
}
