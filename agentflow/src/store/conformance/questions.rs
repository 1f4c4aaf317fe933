//! Checks of questions and answers.

use super::{
    super::{
        BeginRun, Begun, NewQuestion, OnBusyThread, QuestionId, QuestionStatus, Rest, RunEnd, RunStart, RunStatus,
    },
    check::list_checks,
    harness::{Checked, Harness, ensure, json, same, thread_id, unexpected, value},
};

list_checks![
    an_answer_begins_a_run,
    a_question_is_answered_once,
    a_question_of_no_thread_is_not_open,
    an_answered_question_is_closed_by_its_node,
    an_answer_leaves_the_other_questions_open,
    a_new_input_drops_the_open_questions,
    a_resume_leaves_the_questions_open,
    only_open_questions_are_dropped,
    only_answered_questions_are_closed_or_reopened,
    a_queued_answer_is_checked_when_it_starts,
    questions_are_listed_oldest_first,
];

async fn an_answer_begins_a_run(h: &mut Harness<'_>) -> Checked {
    let (asker, question) = h.a.run_until_question("t").await?;
    same("the state of the question", h.b.question_status("t", question).await?, Some(QuestionStatus::Open))?;
    let begun = h.b.answer("t", question, r#"{"yes":true}"#).await?;
    let Begun::Running(started) = begun else { return unexpected("an answer", &begun) };
    ensure(started.checkpoints.is_empty(), "an answer made a checkpoint")?;
    let questions = h.a.store.questions(&thread_id("t"), Some(QuestionStatus::Answered)).await?;
    let row = questions.first().ok_or("the question is not answered")?;
    same("the asker", row.asked_by, asker.id)?;
    let answer = value(row.answer.as_ref().ok_or("the answer is not there")?)?;
    same("the answer", answer, serde_json::json!({"yes": true}))?;
    let run = h.a.row(row.answered_by.ok_or("the run is not there")?).await?;
    same("the answering run", (run.status, run.last_checkpoint), (RunStatus::Running, asker.last))?;
    same("the head", h.a.head("t").await?, asker.last)
}

async fn a_question_is_answered_once(h: &mut Harness<'_>) -> Checked {
    let (_, question) = h.a.run_until_question("t").await?;
    let second = h.b.answering("t", question, "2").await?;
    let begun = h.a.answer("t", question, "1").await?;
    let Begun::Running(_) = begun else { return unexpected("the first answer", &begun) };
    for policy in [OnBusyThread::Queue, OnBusyThread::Reject, OnBusyThread::Cancel] {
        let run = h.b.run("t");
        let id = run.id;
        match h.b.store.begin_run(BeginRun::new(run, policy, second.clone())).await? {
            Begun::NotOpen { question: of, status } => {
                same("the refusal", (of, status), (question, Some(QuestionStatus::Answered)))?;
            }
            other => return unexpected("the second answer", &other),
        }
        ensure(h.b.store.run(id).await?.is_none(), "the run of the second answer is there")?;
    }
    let questions = h.b.store.questions(&thread_id("t"), None).await?;
    let row = questions.first().ok_or("the question is not there")?;
    same("the answer", row.answer.as_ref().map(value).transpose()?, Some(1.into()))?;
    let running = row.answered_by.ok_or("the run is not there")?;
    same("a cancel by the second answer", h.b.row(running).await?.cancel, None)
}

async fn a_question_of_no_thread_is_not_open(h: &mut Harness<'_>) -> Checked {
    let (_, elsewhere) = h.a.run_until_question("other").await?;
    for (thread, question) in [("new", QuestionId::new()), ("t", QuestionId::new()), ("t", elsewhere)] {
        if thread == "t" {
            h.a.run_once("t", 1).await?;
        }
        match h.a.answer(thread, question, "1").await? {
            Begun::NotOpen { status: None, .. } => {}
            other => return unexpected("an answer to a question of no thread", &other),
        }
    }
    ensure(h.a.store.thread(&thread_id("new")).await?.is_none(), "the refused answer made its thread")
}

async fn an_answered_question_is_closed_by_its_node(h: &mut Harness<'_>) -> Checked {
    let (_, question) = h.a.run_until_question("t").await?;
    let run = h.a.run("t");
    let start = h.a.answering("t", question, "1").await?;
    let id = run.id;
    let begun = h.a.store.begin_run(BeginRun::new(run, OnBusyThread::Queue, start)).await?;
    let mut live = h.a.live(id, thread_id("t"), begun).await?;
    let mut commit = live.commit_of("{}");
    commit.closes = vec![question];
    h.a.commit(&mut live, commit).await?;
    same("the state of the question", h.b.question_status("t", question).await?, Some(QuestionStatus::Closed))?;
    let mut commit = live.commit();
    (commit.drops, commit.reopens) = (vec![question], vec![question]);
    h.a.commit(&mut live, commit).await?;
    same("a closed question", h.b.question_status("t", question).await?, Some(QuestionStatus::Closed))
}

async fn an_answer_leaves_the_other_questions_open(h: &mut Harness<'_>) -> Checked {
    let mut live = h.a.begin("t").await?;
    h.a.step(&mut live, 1).await?;
    let ids = [QuestionId::new(), QuestionId::new()];
    let mut commit = live.commit();
    commit.questions = ids.map(|id| NewQuestion::new(id, "ask".into(), "s".into(), json("1"))).into();
    commit.end = Some(RunEnd::new(RunStatus::Waiting, Rest::Paused));
    h.a.commit(&mut live, commit).await?;
    h.b.answer("t", ids[1], "1").await?;
    same("the other question", h.a.question_status("t", ids[0]).await?, Some(QuestionStatus::Open))?;
    same("the answered one", h.a.question_status("t", ids[1]).await?, Some(QuestionStatus::Answered))
}

async fn a_new_input_drops_the_open_questions(h: &mut Harness<'_>) -> Checked {
    let (_, question) = h.a.run_until_question("t").await?;
    h.b.run_once("t", 1).await?;
    same("the state of the question", h.a.question_status("t", question).await?, Some(QuestionStatus::Dropped))?;
    match h.a.answer("t", question, "1").await? {
        Begun::NotOpen { status: Some(QuestionStatus::Dropped), .. } => Ok(()),
        other => unexpected("an answer to a dropped question", &other),
    }
}

async fn a_resume_leaves_the_questions_open(h: &mut Harness<'_>) -> Checked {
    let (asker, question) = h.a.run_until_question("t").await?;
    let mut live = h.b.begin_with("t", RunStart::at(asker.last)).await?;
    same("the question at the start", h.a.question_status("t", question).await?, Some(QuestionStatus::Open))?;
    let anew = NewQuestion::new(QuestionId::new(), "ask".into(), "s".into(), json("2"));
    let mut commit = live.commit();
    (commit.drops, commit.questions) = (vec![question], vec![anew.clone()]);
    h.b.commit(&mut live, commit).await?;
    same("the former question", h.a.question_status("t", question).await?, Some(QuestionStatus::Dropped))?;
    same("the new question", h.a.question_status("t", anew.id).await?, Some(QuestionStatus::Open))
}

async fn only_open_questions_are_dropped(h: &mut Harness<'_>) -> Checked {
    let (_, question) = h.a.run_until_question("t").await?;
    let start = h.a.answering("t", question, "1").await?;
    let mut live = h.a.begin_with("t", start).await?;
    let mut commit = live.commit();
    commit.drops = vec![question];
    h.a.commit(&mut live, commit).await?;
    same("an answered question", h.b.question_status("t", question).await?, Some(QuestionStatus::Answered))?;
    h.a.end(&mut live, RunStatus::Failed, Rest::Failed).await?;
    same("after a failure", h.b.question_status("t", question).await?, Some(QuestionStatus::Answered))
}

async fn only_answered_questions_are_closed_or_reopened(h: &mut Harness<'_>) -> Checked {
    let (asker, question) = h.a.run_until_question("t").await?;
    let mut live = h.a.begin_with("t", RunStart::at(asker.last)).await?;
    let mut commit = live.commit();
    (commit.closes, commit.reopens) = (vec![question], vec![question]);
    h.a.commit(&mut live, commit).await?;
    same("an open question", h.b.question_status("t", question).await?, Some(QuestionStatus::Open))?;
    h.a.end(&mut live, RunStatus::Waiting, Rest::Paused).await?;

    let start = h.a.answering("t", question, "1").await?;
    let mut live = h.a.begin_with("t", start).await?;
    let mut commit = live.commit();
    commit.reopens = vec![question];
    h.a.commit(&mut live, commit).await?;
    let questions = h.b.store.questions(&thread_id("t"), Some(QuestionStatus::Open)).await?;
    let row = questions.first().ok_or("the question is not open again")?;
    ensure(row.answered_by.is_none() && row.answer.is_none(), "an open question has an answer")
}

async fn a_queued_answer_is_checked_when_it_starts(h: &mut Harness<'_>) -> Checked {
    let (asker, question) = h.a.run_until_question("t").await?;
    let mut live = h.a.begin_with("t", RunStart::at(asker.last)).await?;
    let start = h.b.answering("t", question, "1").await?;
    let run = h.b.run("t");
    let id = run.id;
    let begun = h.b.store.begin_run(BeginRun::new(run, OnBusyThread::Queue, start.clone())).await?;
    ensure(matches!(begun, Begun::Queued { .. }), format_args!("an answer to a busy thread: got {begun:?}"))?;
    let mut commit = live.commit();
    commit.drops = vec![question];
    commit.end = Some(RunEnd::new(RunStatus::Done, Rest::Idle));
    h.a.commit(&mut live, commit).await?;
    match h.b.store.start_run(id, h.b.owner, start).await? {
        Begun::NotOpen { status: Some(QuestionStatus::Dropped), .. } => {}
        other => return unexpected("the start of an answer to a dropped question", &other),
    }
    same("its status", h.b.status(id).await?, RunStatus::Queued)?;
    same("the question", h.a.question_status("t", question).await?, Some(QuestionStatus::Dropped))
}

async fn questions_are_listed_oldest_first(h: &mut Harness<'_>) -> Checked {
    let mut live = h.a.begin("t").await?;
    let mut ids = Vec::new();
    for n in 0..3 {
        let asked = NewQuestion::new(QuestionId::new(), "ask".into(), format!("{n}").into(), json("1"));
        ids.push(asked.id);
        let mut commit = live.commit();
        commit.questions = vec![asked];
        h.a.commit(&mut live, commit).await?;
    }
    let questions = h.b.store.questions(&thread_id("t"), None).await?;
    same("the questions", questions.iter().map(|row| row.asked.id).collect(), ids)
}
