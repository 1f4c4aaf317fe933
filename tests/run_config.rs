//! `RunConfig`: values that are set, absent values, and the types that values are read as.

use std::collections::HashMap;
use std::time::Duration;

use agentflow::{CancellationToken, RunConfig, RunId};
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Limits {
    pages: u32,
    words: Option<u32>,
}

#[test]
fn values_that_are_set_are_returned() {
    let run_id = RunId::new();
    let token = CancellationToken::new();
    let config = RunConfig::new()
        .with_user_id("ada")
        .with_thread_id("t-1".to_owned())
        .with_run_id(run_id)
        .with_run_timeout(Duration::from_secs(3))
        .with_cancellation_token(token.clone());
    assert_eq!((config.user_id(), config.thread_id()), (Some("ada"), Some("t-1")));
    assert_eq!((config.run_id(), config.run_timeout()), (Some(run_id), Some(Duration::from_secs(3))));

    token.cancel();
    assert!(config.cancellation_token().unwrap().is_cancelled());
}

#[test]
fn values_that_are_not_set_are_absent() {
    let config = RunConfig::new().with_value("other", 1);
    for config in [RunConfig::default(), config] {
        assert_eq!((config.user_id(), config.thread_id()), (None, None));
        assert_eq!((config.run_id(), config.run_timeout()), (None, None));
        assert!(config.cancellation_token().is_none());
        assert_eq!(config.value::<String>("key").unwrap(), None);
    }
}

#[test]
fn setting_a_run_id_does_not_copy_shared_values() {
    let shared = RunConfig::new().with_user_id("ada");
    let runs = [shared.clone().with_run_id(RunId::new()), shared.clone().with_run_id(RunId::new())];
    let text = |config: &RunConfig| config.user_id().map(str::as_ptr);
    assert!(runs.iter().all(|run| text(run) == text(&shared)));
    assert_ne!(runs[0].run_id(), runs[1].run_id());
    assert_eq!(shared.run_id(), None);
}

#[test]
fn a_clone_is_independent() {
    let ada = RunConfig::new().with_user_id("ada").with_value("language", "en");
    let bob = ada.clone().with_user_id("bob").with_value("language", "de");
    assert_eq!((ada.user_id(), bob.user_id()), (Some("ada"), Some("bob")));
    assert_eq!(ada.value::<String>("language").unwrap().unwrap(), "en");
    assert_eq!(bob.value::<String>("language").unwrap().unwrap(), "de");
}

#[test]
fn a_value_is_read_as_the_requested_type() {
    let limits = Limits { pages: 3, words: None };
    let config = RunConfig::new()
        .with_value("limits", serde_json::to_value(&limits).unwrap())
        .with_value("tags", json!(["a", "b"]))
        .with_value("nothing", json!(null));
    assert_eq!(config.value("limits").unwrap(), Some(limits));
    assert_eq!(config.value::<HashMap<String, Option<u8>>>("limits").unwrap().unwrap()["pages"], Some(3));
    assert_eq!(config.value::<Vec<String>>("tags").unwrap().unwrap(), ["a", "b"]);
    assert_eq!(config.value::<Option<u8>>("nothing").unwrap(), Some(None));
}

#[test]
fn the_last_value_of_a_key_wins() {
    let config = RunConfig::new().with_value("pages", 1).with_value("pages", "many");
    assert_eq!(config.value::<String>("pages").unwrap().unwrap(), "many");
}

#[test]
fn a_value_of_another_type_is_an_error_with_key_and_cause() {
    let config = RunConfig::new().with_value("limits", json!({ "pages": "three" }));
    let error = config.value::<Limits>("limits").unwrap_err();
    assert_eq!(error.key, "limits");
    let text = error.to_string();
    assert!(text.starts_with("the config value `limits` is not a `"), "{text}");
    assert!(text.contains("run_config::Limits`: invalid type: string \"three\", expected u32"), "{text}");
}

#[test]
fn a_child_has_everything_but_the_id_and_the_timeout() {
    let token = CancellationToken::new();
    let outer = RunConfig::new()
        .with_user_id("ada")
        .with_thread_id("t")
        .with_value("language", "en")
        .with_service(7_u32)
        .with_cancellation_token(token.clone())
        .with_run_timeout(Duration::from_secs(1))
        .with_run_id(RunId::new());
    let child = outer.child();
    assert_eq!((child.user_id(), child.thread_id(), child.run_id()), (Some("ada"), Some("t"), None));
    assert_eq!((child.run_timeout(), child.service::<u32>()), (None, Some(&7)));
    assert_eq!(child.value::<String>("language").unwrap().as_deref(), Some("en"));
    token.cancel();
    assert!(child.cancellation_token().unwrap().is_cancelled());
    assert_eq!(outer.run_timeout(), Some(Duration::from_secs(1)), "the outer config stays as it is");
}

#[test]
fn a_service_of_a_run_is_found_by_its_type() {
    let config = RunConfig::new().with_service("a").with_service(1_u8).with_service(2_u8);
    assert_eq!((config.service::<&str>(), config.service::<u8>()), (Some(&"a"), Some(&2)));
    assert_eq!(config.service::<u16>(), None);
    assert!(format!("{config:?}").contains("u8"), "{config:?}");
}
