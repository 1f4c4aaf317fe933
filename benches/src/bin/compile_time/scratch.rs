//! Two crates of the same functions: one wires them with `graph!`, one calls them by hand.

use std::{
    env,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The number of nodes of the graph.
pub(crate) const NODES: u32 = 50;

/// A workspace of scratch crates.
#[derive(Debug)]
pub(crate) struct Scratch {
    root: PathBuf,
}

/// One of the two crates.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Crate {
    ByHand,
    WithGraph,
}

impl Crate {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ByHand => "by_hand",
            Self::WithGraph => "with_graph",
        }
    }

    fn source(self) -> String {
        let (import, attribute) = match self {
            Self::ByHand => ("AgentState, Message", ""),
            Self::WithGraph => ("AgentState, CompiledGraph, Message, graph, node", "#[node]\n"),
        };
        let mut source = format!("use agentflow::{{{import}}};\n");
        for node in 0..NODES {
            let body = format!("state.context.push(Message::assistant(\"{node}\"));");
            // Writing to a string cannot fail.
            let _ = write!(source, "\n{attribute}pub async fn n{node}(state: &mut AgentState) {{\n    {body}\n}}\n");
        }
        let nodes = (0..NODES).map(|node| format!("n{node}"));
        let end = match self {
            Self::ByHand => {
                let calls = nodes.map(|node| format!("    {node}(state).await;")).collect::<Vec<_>>().join("\n");
                format!("\npub async fn run(state: &mut AgentState) {{\n{calls}\n}}\n")
            }
            Self::WithGraph => {
                let chain = nodes.collect::<Vec<_>>().join(" -> ");
                format!("\npub fn app() -> CompiledGraph<AgentState> {{\n    graph! {{ {chain} -> END }}\n}}\n")
            }
        };
        source + &end
    }
}

impl Scratch {
    /// Writes both crates beside the build of this program. They use the locked dependencies of this repository.
    pub(crate) fn create() -> io::Result<Self> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or(io::ErrorKind::NotFound)?;
        let program = env::current_exe()?;
        let target = program.ancestors().nth(2).ok_or(io::ErrorKind::NotFound)?;
        let scratch = Self { root: target.join("compile_time") };
        fs::create_dir_all(&scratch.root)?;
        fs::copy(repository.join("Cargo.lock"), scratch.root.join("Cargo.lock"))?;
        let members = "[workspace]\nresolver = \"3\"\nmembers = [\"by_hand\", \"with_graph\"]\n";
        fs::write(scratch.root.join("Cargo.toml"), members)?;
        for which in [Crate::ByHand, Crate::WithGraph] {
            let folder = scratch.root.join(which.name());
            fs::create_dir_all(folder.join("src"))?;
            let package = format!(
                "[package]\nname = \"{}\"\nedition = \"2024\"\n\n[dependencies]\nagentflow = {{ path = '{}' }}\n",
                which.name(),
                repository.join("agentflow").display(),
            );
            fs::write(folder.join("Cargo.toml"), package)?;
            fs::write(scratch.source(which), which.source())?;
        }
        Ok(scratch)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Updates the modification time of the crate's source, so that cargo checks it again.
    pub(crate) fn touch(&self, which: Crate) -> io::Result<()> {
        fs::File::options().write(true).open(self.source(which))?.set_modified(SystemTime::now())
    }

    fn source(&self, which: Crate) -> PathBuf {
        self.root.join(which.name()).join("src/lib.rs")
    }
}
