//! [`StoreKind`]: the stores that can be tested.

use std::{path::Path, str::FromStr, sync::Arc};

use agentflow::store::{Store, StoreError};
use agentflow_sqlite::SqliteStore;

/// A store that outlives the process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StoreKind {
    /// A file in the folder of the test.
    Sqlite,
}

impl StoreKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
        }
    }

    /// Opens the store.
    pub(crate) fn open(self, folder: &Path) -> Result<Arc<dyn Store>, StoreError> {
        match self {
            Self::Sqlite => Ok(Arc::new(SqliteStore::open(folder.join("kill.db"))?)),
        }
    }
}

impl FromStr for StoreKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "sqlite" => Ok(Self::Sqlite),
            other => Err(format!("`{other}` is no store; there is `sqlite`")),
        }
    }
}
