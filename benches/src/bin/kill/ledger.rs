//! [`Ledger`]: a file beside the store, in which the children note what the store has acknowledged.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

/// A file to which lines are appended. A line that was written outlives the process that wrote it.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    file: Arc<File>,
}

/// The fate of an input, as far as the child learned of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) thread: String,
    /// The store has acknowledged that it accepted the input.
    pub(crate) is_accepted: bool,
}

/// All that the children have noted.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// The inputs, by their ids.
    pub(crate) inputs: BTreeMap<String, Sent>,
    /// The number of runs that were taken over.
    pub(crate) recovered: u64,
    /// The number of answers that the store has acknowledged.
    pub(crate) answered: u64,
    /// The executions of each step, by its mark.
    pub(crate) executions: BTreeMap<String, u64>,
}

impl Ledger {
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join("ledger");
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        Ok(Self { path, file: Arc::new(file) })
    }

    fn note(&self, line: &str) {
        // One write is one line: it is there or not, however the process dies.
        (&*self.file).write_all(format!("{line}\n").as_bytes()).expect("the ledger can be written");
    }

    pub(crate) fn up(&self, child: u32, recovered: usize) {
        self.note(&format!("up {child} {recovered}"));
    }

    pub(crate) fn sent(&self, thread: &str, input: &str) {
        self.note(&format!("sent {thread} {input}"));
    }

    pub(crate) fn accepted(&self, thread: &str, input: &str) {
        self.note(&format!("accepted {thread} {input}"));
    }

    pub(crate) fn answered(&self, thread: &str) {
        self.note(&format!("answered {thread} -"));
    }

    pub(crate) fn executed(&self, mark: &str) {
        self.note(&format!("executed {mark} -"));
    }

    /// Returns the length of the ledger in bytes.
    pub(crate) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Returns whether a child has taken over what it found. It began when the ledger had this length.
    pub(crate) fn is_up(&self, child: u32, since: u64) -> io::Result<bool> {
        Ok(self.lines(since)?.iter().any(|[what, number, _]| what == "up" && *number == child.to_string()))
    }

    /// Reads all that the children have noted.
    pub(crate) fn notes(&self) -> io::Result<Notes> {
        let mut notes = Notes::default();
        for [what, first, second] in self.lines(0)? {
            match what.as_str() {
                "up" => notes.recovered += second.parse::<u64>().unwrap_or_default(),
                "sent" => _ = notes.inputs.insert(second, Sent { thread: first, is_accepted: false }),
                "accepted" => _ = notes.inputs.insert(second, Sent { thread: first, is_accepted: true }),
                "answered" => notes.answered += 1,
                "executed" => *notes.executions.entry(first).or_default() += 1,
                _ => {}
            }
        }
        Ok(notes)
    }

    fn lines(&self, from: u64) -> io::Result<Vec<[String; 3]>> {
        let mut text = String::new();
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(from))?;
        file.read_to_string(&mut text)?;
        // A line without an end was cut off.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>().try_into().ok();
        Ok(whole.lines().filter_map(words).collect())
    }
}
