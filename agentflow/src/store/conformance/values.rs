//! Checks of the JSON that a store gives back.

use serde_json::Value;

use super::{
    super::{NewValues, ProgressRecord, PutItem, Source},
    check::list_checks,
    harness::{Checked, Harness, bytes, checkpoint, ensure, json, same, task, thread_id, value},
};

list_checks![
    json_comes_back_as_it_was,
    numbers_keep_every_digit,
    a_value_that_is_no_json_is_refused_or_comes_back,
    differences_set_append_and_remove,
    a_large_state_comes_back,
];

/// Values in which a store may lose something.
const TEXTS: &[&str] = &[
    "null",
    r#"{"":{"":[]},"a\u0000b":"\u0000","tab":"\t","quote":"\"\\"}"#,
    r#"{"ä":"😀 \u2028","nested":[[[[{"x":null}]]]]}"#,
    r#"["it's", "100%", "$1", "?", "a;b--c"]"#,
];

async fn json_comes_back_as_it_was(h: &mut Harness<'_>) -> Checked {
    for (n, text) in TEXTS.iter().enumerate() {
        let expected: Value = serde_json::from_str(text)?;
        let thread = format!("t{n}");
        let mut run = h.a.run(&thread);
        (run.input, run.config) = (json(text), json(text));
        run.metadata.insert("value".into(), expected.clone());
        let id = run.id;
        let mut start = h.a.start_of(&thread, Some(text)).await?;
        start.checkpoints[0].position = json(text);
        start.checkpoints[0].writes = Some(bytes(text));
        let request = super::super::BeginRun::new(run, super::super::OnBusyThread::Reject, start);
        let begun = h.a.store.begin_run(request).await?;
        let live = h.a.live(id, thread_id(&thread), begun).await?;
        let record = vec![ProgressRecord::new((*text).into(), (*text).into(), json(text))];
        h.a.store.record(live.id, live.epoch, record).await?;
        let mut spawned = task("mail");
        spawned.args = bytes(text);
        h.a.store.enqueue(vec![spawned.clone()]).await?;
        h.a.store.put_item(PutItem::new(vec![(*text).to_owned()], *text, expected.clone())).await?;

        let row = h.b.row(live.id).await?;
        same("an input", value(&row.run.input)?, expected.clone())?;
        same("a config", value(&row.run.config)?, expected.clone())?;
        same("metadata of a run", row.run.metadata.get("value"), Some(&expected))?;
        let head = h.b.store.load(&live.thread, None).await?.ok_or("the head is not there")?;
        same("a state", value(&head.values)?, expected.clone())?;
        same("a position", value(&head.position)?, expected.clone())?;
        same("writes", head.writes.map(|writes| serde_json::from_slice(&writes)).transpose()?, Some(expected.clone()))?;
        let records = h.b.store.progress(&live.thread).await?;
        let record = records.first().ok_or("the record is not there")?;
        same("a record", (&*record.step, &*record.path, value(&record.record)?), (*text, *text, expected.clone()))?;
        let args: Value = serde_json::from_slice(&h.b.task(spawned.id).await?.task.args)?;
        same("arguments", args, expected.clone())?;
        let item = h.b.store.item(&[(*text).to_owned()], text).await?.ok_or("the item is not there")?;
        same("an item", item.value, expected)?;
    }
    Ok(())
}

async fn numbers_keep_every_digit(h: &mut Harness<'_>) -> Checked {
    let text =
        r"[18446744073709551615,-9223372036854775808,0.1,1e308,5e-324,-0.0,1.7976931348623157e308,123456789.123456789]";
    let expected: Value = serde_json::from_str(text)?;
    h.a.begin_with("t", h.a.start_of("t", Some(text)).await?).await?;
    same("the numbers of a state", h.b.state("t", None).await?, expected.clone())?;
    h.a.store.put_item(PutItem::new(vec!["n".to_owned()], "k", expected.clone())).await?;
    let item = h.b.store.item(&["n".to_owned()], "k").await?.ok_or("the item is not there")?;
    same("the numbers of an item", item.value, expected)
}

async fn a_value_that_is_no_json_is_refused_or_comes_back(h: &mut Harness<'_>) -> Checked {
    let text = r#"{"score":NaN}"#;
    let mut start = h.a.start_of("t", Some(text)).await?;
    start.checkpoints[0].position = json(text);
    let begun = h.a.begin_with("t", start).await;
    let head = h.b.store.load(&thread_id("t"), None).await;
    match (begun, head) {
        (Err(_), Ok(None)) | (Ok(_), Err(_)) => Ok(()),
        (Err(_), other) => Err(format!("a refused state was written: {other:?}").into()),
        (Ok(_), Ok(head)) => {
            let head = head.ok_or("the head is not there")?;
            for stored in [head.values, head.position] {
                let got = stored.json().map(|json| String::from_utf8_lossy(json).into_owned());
                same("a value that is no JSON", got.as_deref(), Some(text))?;
            }
            Ok(())
        }
    }
}

async fn differences_set_append_and_remove(h: &mut Harness<'_>) -> Checked {
    let start = h.a.start_of("t", Some(r#"{"keep":{"x":[1]},"list":[1],"gone":true}"#)).await?;
    let mut live = h.a.begin_with("t", start).await?;
    let mut length = 0;
    for (delta, expected) in [
        (r#"{"append":{"list":[2,3]}}"#, r#"{"keep":{"x":[1]},"list":[1,2,3],"gone":true}"#),
        (r#"{"set":{"new":null},"remove":["gone"]}"#, r#"{"keep":{"x":[1]},"list":[1,2,3],"new":null}"#),
        (r#"{"set":{"list":[]}}"#, r#"{"keep":{"x":[1]},"list":[],"new":null}"#),
    ] {
        let commit = live.commit_of(delta);
        h.a.commit(&mut live, commit).await?;
        length += delta.len() as u64;
        same(delta, h.b.state("t", None).await?, serde_json::from_str(expected)?)?;
        let head = h.b.store.load(&live.thread, None).await?.ok_or("the head is not there")?;
        same("the length of the differences", head.delta_bytes, length)?;
    }
    let mut commit = live.commit();
    commit.checkpoint = Some(checkpoint(Source::Loop, NewValues::Same));
    h.a.commit(&mut live, commit).await?;
    same(
        "the same state",
        h.b.state("t", None).await?,
        serde_json::json!({"keep": {"x": [1]}, "list": [], "new": null}),
    )?;
    let mut commit = live.commit();
    commit.checkpoint = Some(checkpoint(Source::Loop, NewValues::Snapshot(json("[1]"))));
    h.a.commit(&mut live, commit).await?;
    let head = h.b.store.load(&live.thread, None).await?.ok_or("the head is not there")?;
    same("a whole state", (value(&head.values)?, head.delta_bytes), (serde_json::json!([1]), 0))?;
    let orphan = {
        let mut start = h.a.start_of("orphan", None).await?;
        start.checkpoints = vec![checkpoint(Source::Input, NewValues::Same)];
        h.a.begin_with("orphan", start).await
    };
    ensure(orphan.is_err(), "a checkpoint without a parent has the state of its parent")
}

async fn a_large_state_comes_back(h: &mut Harness<'_>) -> Checked {
    let text = format!(r#"{{"text":"{}"}}"#, "ö".repeat(1 << 20));
    h.a.begin_with("t", h.a.start_of("t", Some(&text)).await?).await?;
    let got = h.b.state("t", None).await?;
    ensure(got == serde_json::from_str::<Value>(&text)?, "two megabytes came back in another form")
}
