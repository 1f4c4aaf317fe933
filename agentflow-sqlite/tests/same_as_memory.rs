//! Random operations on this store and on the one in memory: both answer the same.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::HashMap, env, fmt::Debug, time::Duration};

use agentflow::{
    RunId,
    store::{
        BeginRun, Begun, CancelKind, CheckpointId, Claim, Commit, Edit, FinishTask, Fire, HistoryFilter, KeyPolicy,
        MemoryStore, NewAnswer, NewCheckpoint, NewQuestion, NewRun, NewTask, NewValues, OnBusyThread, Overlap, OwnerId,
        ProgressRecord, QuestionId, ReleaseTask, Rest, RunEnd, RunFilter, RunStart, RunStatus, ScheduleRow, Source,
        Store, Stored, StoredTaskFilter, StoredTaskId, TakeOver, TaskEnd, TaskKey, TaskRetention, ThreadFilter,
        ThreadId, Timestamp,
    },
};
use agentflow_sqlite::SqliteStore;
use bytes::Bytes;

const HOUR: Duration = Duration::from_hours(1);

/// A small generator of random numbers (xorshift), so that a failure is repeated by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        if of.is_empty() { None } else { Some(of[self.below(of.len())]) }
    }
}

/// One store, and the names of the ids that it makes: checkpoints and copied questions.
struct Side {
    store: Box<dyn Store>,
    names: HashMap<String, usize>,
    /// The checkpoints in the order in which they were made.
    checkpoints: Vec<CheckpointId>,
}

impl Side {
    fn new(store: Box<dyn Store>) -> Self {
        Self { store, names: HashMap::new(), checkpoints: Vec::new() }
    }

    /// Returns a text in which ids are numbered by their first appearance, and times are left out.
    fn normal(&mut self, value: &impl Debug) -> String {
        let text = format!("{value:?}");
        let mut normal = String::new();
        let mut rest = &text[..];
        while let Some(at) = rest.find(|c: char| c.is_ascii_hexdigit()) {
            normal.push_str(&rest[..at]);
            rest = &rest[at..];
            let end = rest.find(|c: char| !c.is_ascii_hexdigit() && c != '-').unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after;
            if word.len() == 36 {
                let number = self.names.len();
                let number = *self.names.entry(word.to_owned()).or_insert(number);
                normal.push('#');
                normal.push_str(&number.to_string());
            } else if !normal.ends_with("Timestamp(") {
                normal.push_str(word);
            }
        }
        normal.push_str(rest);
        // A time that passed is measured, and differs.
        let mut parts = normal.split("consumed: ");
        let mut stable = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            stable.push_str(part.find([',', ' ', '}']).map_or("", |end| &part[end..]));
        }
        stable
    }

    fn checkpoint(&self, index: Option<usize>) -> Option<CheckpointId> {
        self.checkpoints.get(index?).copied()
    }
}

struct World {
    random: Random,
    sides: [Side; 2],
    sqlite: SqliteStore,
    memory: MemoryStore,
    owners: Vec<OwnerId>,
    runs: Vec<RunId>,
    tasks: Vec<StoredTaskId>,
    questions: Vec<QuestionId>,
    log: Vec<String>,
}

/// Carries out an operation on both stores, and compares the answers. The operation is made for each side, because the
/// stores make ids of their own.
macro_rules! both {
    ($world:expr, |$side:ident| $call:expr) => {{
        let mut answers = Vec::new();
        let mut texts = Vec::new();
        for index in 0..2 {
            let answer = {
                let $side = &$world.sides[index];
                $call.await
            };
            let text = match &answer {
                Ok(answer) => $world.sides[index].normal(answer),
                Err(error) => format!("{:?}", error.kind()),
            };
            texts.push(text);
            answers.push(answer);
        }
        $world.log.push(format!("{}\n    -> {}", stringify!($call).replace('\n', " "), texts[0]));
        if texts[0] != texts[1] {
            let from = $world.log.len().saturating_sub(25);
            let same = texts[0].bytes().zip(texts[1].bytes()).take_while(|(one, other)| one == other).count();
            let [memory, sqlite] = [0, 1].map(|side| texts[side].get(same.saturating_sub(700)..).unwrap_or_default());
            panic!("memory: {memory:.900}\n\nsqlite: {sqlite:.900}\n\n{}", $world.log[from..].join("\n"));
        }
        answers
    }};
}

fn json(text: &str) -> Stored {
    Stored::Json(Bytes::copy_from_slice(text.as_bytes()))
}

impl World {
    fn thread(&mut self) -> ThreadId {
        ["a", "b", "c"][self.random.below(3)].parse().unwrap()
    }

    fn new_checkpoint(&mut self, is_first: bool) -> NewCheckpoint {
        let values = match self.random.below(if is_first { 1 } else { 4 }) {
            0 => NewValues::Snapshot(json(r#"{"n":[1],"s":"x"}"#)),
            1 => NewValues::Same,
            2 => NewValues::Delta(Bytes::from_static(br#"{"append":{"n":[2]}}"#)),
            _ => NewValues::Delta(Bytes::from_static(br#"{"set":{"s":"y"}}"#)),
        };
        let next = if self.random.chance(50) { vec!["next".into()] } else { Vec::new() };
        NewCheckpoint::new(Source::Loop, values, next, json("{}"))
    }

    fn rest(&mut self) -> Rest {
        [Rest::Idle, Rest::Paused, Rest::Failed][self.random.below(3)]
    }

    fn new_task(&mut self) -> NewTask {
        let id = if self.random.chance(5) { self.random.pick(&self.tasks) } else { None };
        let id = id.unwrap_or_else(StoredTaskId::new);
        self.tasks.push(id);
        let name = ["mail", "report"][self.random.below(2)];
        let mut task = NewTask::new(id, name, Bytes::from_static(b"1"), Bytes::from_static(b"{}"));
        task.priority = i32::try_from(self.random.below(3)).unwrap();
        if self.random.chance(20) {
            task.delay = HOUR / 2;
        }
        if self.random.chance(60) {
            let policy =
                [KeyPolicy::Skip, KeyPolicy::Replace, KeyPolicy::Queue, KeyPolicy::Queue][self.random.below(4)];
            task.key = Some(TaskKey::new("scope", ["k", "l"][self.random.below(2)], policy));
        }
        task.run = if self.random.chance(40) { self.random.pick(&self.runs) } else { None };
        task
    }

    fn answers(&mut self) -> Vec<NewAnswer> {
        if !self.random.chance(30) {
            return Vec::new();
        }
        self.random.pick(&self.questions).map(|question| NewAnswer::new(question, json("true"))).into_iter().collect()
    }

    /// Makes the start of a run on both sides, at the head or elsewhere.
    async fn starts(&mut self, thread: &ThreadId) -> Vec<RunStart> {
        let count = self.random.below(3);
        let (is_moved, is_older, drops) = (self.random.chance(5), self.random.chance(15), self.random.chance(30));
        let older = if self.sides[0].checkpoints.is_empty() {
            None
        } else {
            Some(self.random.below(self.sides[0].checkpoints.len()))
        };
        let answers = self.answers();
        let head = self.sides[0].store.thread(thread).await.unwrap().and_then(|row| row.head);
        let is_first = head.is_none();
        let new: Vec<_> =
            (0..count.max(usize::from(is_first))).map(|index| self.new_checkpoint(is_first && index == 0)).collect();
        let mut starts = Vec::new();
        for side in &self.sides {
            let head = side.store.thread(thread).await.unwrap().and_then(|row| row.head);
            let mut start = RunStart::at(if is_moved { side.checkpoint(older) } else { head });
            start.base = if is_older { side.checkpoint(older) } else { head };
            start.checkpoints.clone_from(&new);
            start.answers.clone_from(&answers);
            start.drops_questions = drops;
            starts.push(start);
        }
        starts
    }

    fn note_begun(&mut self, begun: &[Result<Begun, agentflow::store::StoreError>]) {
        for (side, begun) in self.sides.iter_mut().zip(begun) {
            if let Ok(Begun::Running(started)) = begun {
                side.checkpoints.extend(&started.checkpoints);
            }
        }
    }

    /// Carries out one random operation.
    #[allow(clippy::too_many_lines, reason = "an arm for each operation is easier to read than functions of one line")]
    async fn step(&mut self) {
        match self.random.below(26) {
            0 => {
                let owner = OwnerId::new();
                self.owners.push(owner);
                both!(self, |side| side.store.join(owner, HOUR));
            }
            1 if self.random.chance(30) => {
                let Some(owner) = self.random.pick(&self.owners) else { return };
                both!(self, |side| side.store.leave(owner));
            }
            // All owners die: their leases run out in memory, and their locks are released here.
            2 if self.random.chance(40) => {
                self.memory.advance(2 * HOUR);
                self.sqlite.advance_clock(2 * HOUR);
                self.sqlite.release_owner_locks();
                let owner = OwnerId::new();
                self.owners = vec![owner];
                both!(self, |side| side.store.join(owner, HOUR));
            }
            3..=5 => {
                let thread = self.thread();
                let Some(owner) = self.random.pick(&self.owners) else { return };
                let id = if self.random.chance(5) { self.random.pick(&self.runs) } else { None };
                let id = id.unwrap_or_else(RunId::new);
                self.runs.push(id);
                let graph = if self.random.chance(3) { "other" } else { "graph" };
                let mut run = NewRun::new(id, thread.clone(), graph.into(), owner, json("1"), json("{}"));
                if self.random.chance(10) {
                    run.not_before = Some(self.sqlite.now().await.unwrap().after(HOUR));
                }
                let policy = [
                    OnBusyThread::Reject,
                    OnBusyThread::Queue,
                    OnBusyThread::Queue,
                    OnBusyThread::Cancel,
                    OnBusyThread::Rollback,
                ][self.random.below(5)];
                let starts = self.starts(&thread).await;
                let mut starts = starts.into_iter();
                let begun = both!(self, |side| side.store.begin_run(BeginRun::new(
                    run.clone(),
                    policy,
                    starts.next().unwrap()
                )));
                self.note_begun(&begun);
            }
            6 | 7 => {
                let (Some(run), Some(owner)) = (self.random.pick(&self.runs), self.random.pick(&self.owners)) else {
                    return;
                };
                let Some(row) = self.sides[0].store.run(run).await.unwrap() else { return };
                let starts = self.starts(&row.run.thread).await;
                let mut starts = starts.into_iter();
                let begun = both!(self, |side| side.store.start_run(run, owner, starts.next().unwrap()));
                self.note_begun(&begun);
            }
            8..=11 => self.commit().await,
            12 => {
                let Some(run) = self.random.pick(&self.runs) else { return };
                let epoch = self.sides[0].store.run(run).await.unwrap().map_or(1, |row| row.epoch);
                if self.random.chance(50) {
                    let path = ["x", "y"][self.random.below(2)];
                    let record = vec![ProgressRecord::new("s".into(), path.into(), json("1"))];
                    both!(self, |side| side.store.record(run, epoch, record.clone()));
                } else {
                    both!(self, |side| side.store.release_run(run, epoch, Duration::from_secs(1)));
                }
            }
            13 => {
                let Some(owner) = self.random.pick(&self.owners) else { return };
                let mut request = TakeOver::new("graph".into(), owner, 1 + self.random.below(3));
                request.except = self.random.pick(&self.runs).into_iter().collect();
                request.run = if self.random.chance(20) { self.random.pick(&self.runs) } else { None };
                both!(self, |side| side.store.take_over(request.clone()));
            }
            14 => {
                let Some(run) = self.random.pick(&self.runs) else { return };
                let kind = [CancelKind::Cancel, CancelKind::Rollback][self.random.below(2)];
                both!(self, |side| side.store.request_cancel(run, kind));
            }
            15 => {
                let thread = self.thread();
                let checkpoint = self.new_checkpoint(true);
                let (rest, drops, is_moved) = (self.rest(), self.random.chance(50), self.random.chance(10));
                let mut edits = Vec::new();
                for side in &self.sides {
                    let head = side.store.thread(&thread).await.unwrap().and_then(|row| row.head);
                    let head = if is_moved { side.checkpoint(Some(0)) } else { head };
                    let mut edit = Edit::new(thread.clone(), "graph".into(), head, checkpoint.clone(), rest);
                    edit.drops_questions = drops;
                    edits.push(edit);
                }
                let mut edits = edits.into_iter();
                let edited = both!(self, |side| side.store.edit(edits.next().unwrap()));
                for (side, edited) in self.sides.iter_mut().zip(edited) {
                    if let Ok(agentflow::store::Edited::Made(id)) = edited {
                        side.checkpoints.push(id);
                    }
                }
            }
            16 if self.random.chance(30) => {
                let (from, to) = (self.thread(), self.thread());
                both!(self, |side| side.store.copy_thread(&from, &to));
            }
            17 if self.random.chance(30) => {
                let thread = self.thread();
                both!(self, |side| side.store.delete_thread(&thread));
            }
            18 => {
                let (thread, keep) = (self.thread(), self.random.below(4));
                both!(self, |side| side.store.prune(&thread, keep));
            }
            19 if self.random.chance(40) => {
                let Some(run) = self.random.pick(&self.runs) else { return };
                both!(self, |side| side.store.delete_run(run));
            }
            20 | 21 => {
                let tasks: Vec<_> = (0..=self.random.below(3)).map(|_| self.new_task()).collect();
                both!(self, |side| side.store.enqueue(tasks.clone()));
            }
            22 => {
                let Some(owner) = self.random.pick(&self.owners) else { return };
                let names = vec![("mail".into(), self.random.below(4)), ("report".into(), 2)];
                let mut claim = Claim::new(owner, names, 1 + self.random.below(4));
                // What is to end in a claim ends first: it decides which tasks the rest of a claim finds free.
                let mut none = claim.clone();
                none.limit = 0;
                both!(self, |side| side.store.claim(none.clone()));
                claim.oldest_first = self.random.chance(30);
                both!(self, |side| side.store.claim(claim.clone()));
            }
            23 | 24 => self.change_task().await,
            _ => self.schedule().await,
        }
    }

    async fn commit(&mut self) {
        let running = RunFilter::default();
        let rows = self.sides[0].store.runs(running).await.unwrap();
        let unfinished: Vec<_> = rows.iter().filter(|row| !row.status.has_ended()).collect();
        let row = if self.random.chance(90) {
            self.random.pick(&unfinished)
        } else {
            self.random.pick(&rows.iter().collect::<Vec<_>>())
        };
        let Some(row) = row.cloned() else { return };
        let number = row.commit + u64::from(self.random.chance(90));
        let epoch = row.epoch - u64::from(row.epoch > 1 && self.random.chance(5));
        let mut commit = Commit::new(row.run.id, epoch, number, None);
        commit.steps = row.steps + 1;
        if self.random.chance(70) {
            commit.checkpoint = Some(self.new_checkpoint(row.last_checkpoint.is_none()));
        }
        if self.random.chance(30) {
            commit.tasks = vec![self.new_task()];
        }
        if self.random.chance(30) {
            let id = QuestionId::new();
            self.questions.push(id);
            commit.questions.push(NewQuestion::new(id, "ask".into(), "s".into(), json("1")));
        }
        for list in [&mut commit.closes, &mut commit.drops, &mut commit.reopens] {
            if self.random.chance(20) {
                list.extend(self.random.pick(&self.questions));
            }
        }
        if self.random.chance(20) {
            commit.clears = Some("s".into());
        }
        if self.random.chance(20) {
            commit.progress.push(ProgressRecord::new("s".into(), "z".into(), json("2")));
        }
        if self.random.chance(40) {
            let status =
                [RunStatus::Done, RunStatus::Waiting, RunStatus::Failed, RunStatus::Cancelled][self.random.below(4)];
            let mut end = RunEnd::new(status, self.rest());
            end.rolls_back = self.random.chance(30);
            end.deletes_thread = self.random.chance(5);
            commit.end = Some(end);
        }
        let mut parents = Vec::new();
        for side in &self.sides {
            let last = side.store.run(row.run.id).await.unwrap().and_then(|row| row.last_checkpoint);
            parents.push(last);
        }
        let mut parents = parents.into_iter();
        let committed = both!(self, |side| {
            let mut commit = commit.clone();
            commit.parent = parents.next().unwrap();
            side.store.commit(commit)
        });
        for (side, committed) in self.sides.iter_mut().zip(committed) {
            if let Ok(Some(id)) = committed.map(|committed| committed.checkpoint)
                && !side.checkpoints.contains(&id)
            {
                side.checkpoints.push(id);
            }
        }
    }

    async fn change_task(&mut self) {
        let Some(task) = self.random.pick(&self.tasks) else { return };
        let row = self.sides[0].store.tasks({
            let mut filter = StoredTaskFilter::default();
            filter.ids = Some(vec![task]);
            filter
        });
        let epoch = row.await.unwrap().first().map_or(1, |row| row.epoch);
        match self.random.below(7) {
            0 | 1 => {
                let error = "no".to_owned();
                let end = match self.random.below(4) {
                    0 => TaskEnd::Done,
                    1 => TaskEnd::Failed { error },
                    2 => TaskEnd::Retry { error, delay: HOUR / 4 },
                    _ => TaskEnd::Cancelled,
                };
                both!(self, |side| side.store.finish_task(FinishTask::new(task, epoch, end.clone())));
            }
            2 => {
                both!(self, |side| side.store.release_task(ReleaseTask::new(task, epoch)));
            }
            3 => {
                both!(self, |side| side.store.cancel_task(task));
            }
            4 => {
                both!(self, |side| side.store.retry_task(task));
            }
            5 => {
                both!(self, |side| side.store.delete_task(task));
            }
            _ => {
                let mut retention = TaskRetention::default();
                retention.ended = self.random.below(5);
                retention.failed = self.random.below(5);
                both!(self, |side| side.store.retain_tasks(retention));
            }
        }
    }

    async fn schedule(&mut self) {
        let due = |number| Timestamp::from_micros(i64::try_from(number).unwrap());
        if self.random.chance(30) {
            let definition = Bytes::from_static([&b"1"[..], b"2"][self.random.below(2)]);
            let row = ScheduleRow::new("nightly", "report", definition, due(self.random.below(2)));
            both!(self, |side| side.store.put_schedule(row.clone()));
        } else {
            let (expected, next) = (due(self.random.below(2)), due(self.random.below(2)));
            let mut fire = Fire::new("nightly".into(), expected, next, self.new_task());
            fire.overlap = [Overlap::Skip, Overlap::Queue, Overlap::Allow][self.random.below(3)];
            both!(self, |side| side.store.fire(fire.clone()));
        }
    }

    /// Compares all that both stores have.
    async fn compare(&mut self) {
        both!(self, |side| side.store.runs(RunFilter::default()));
        let mut filter = ThreadFilter::default();
        filter.order = agentflow::store::ThreadOrder::Id;
        both!(self, |side| side.store.threads(filter.clone()));
        both!(self, |side| side.store.tasks(StoredTaskFilter::default()));
        both!(self, |side| side.store.schedules());
        for thread in ["a", "b", "c"] {
            let thread: ThreadId = thread.parse().unwrap();
            both!(self, |side| side.store.history(&thread, HistoryFilter::default()));
            both!(self, |side| side.store.questions(&thread, None));
            both!(self, |side| side.store.progress(&thread));
        }
    }
}

/// The number of the first seed and the number of seeds can be set by the variables `SEED` and `SEEDS`.
#[tokio::test]
async fn random_operations_have_the_same_outcome_as_in_memory() {
    let number = |name, default| env::var(name).map_or(default, |value| value.parse().unwrap());
    let (first, count) = (number("SEED", 1), number("SEEDS", 6));
    for seed in first..first + count {
        let directory = tempfile::tempdir().unwrap();
        let sqlite = SqliteStore::open(directory.path().join("app.db")).unwrap();
        let memory = MemoryStore::new();
        let sides = [Side::new(Box::new(memory.clone())), Side::new(Box::new(sqlite.clone()))];
        let mut world = World {
            random: Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed)),
            sides,
            sqlite,
            memory,
            owners: Vec::new(),
            runs: Vec::new(),
            tasks: Vec::new(),
            questions: Vec::new(),
            log: vec![format!("seed {seed}")],
        };
        for step in 0..300 {
            world.step().await;
            if step % 10 == 0 {
                let operations = world.log.len();
                world.compare().await;
                world.log.truncate(operations);
            }
        }
        world.compare().await;
    }
}
