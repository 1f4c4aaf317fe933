//! A pooler that a test starts.

use std::{
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use tokio_postgres::{Config, config::Host};

use crate::support::{as_server, free_port, new_folder, skip};

/// A pooler before a server, which gives each transaction another connection.
#[derive(Debug)]
pub(crate) struct Pooler {
    process: Child,
    folder: PathBuf,
    port: u16,
}

impl Pooler {
    /// Starts a pooler, or leaves the test out.
    pub(crate) fn start(server: &Config) -> Option<Self> {
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].into_iter().find(|path| Path::new(path).exists());
        let Some(program) = program else {
            skip("PgBouncer is not here");
            return None;
        };
        let folder = new_folder();
        let port = free_port();
        let Host::Tcp(host) = &server.get_hosts()[0] else { panic!("the server has no TCP port") };
        let (server_port, user) = (server.get_ports().first().unwrap_or(&5432), server.get_user().unwrap());
        let password =
            server.get_password().map(|password| format!(" password='{}'", String::from_utf8_lossy(password)));
        let password = password.unwrap_or_default();
        let settings = format!(
            "[databases]\n* = host={host} port={server_port} user={user}{password}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n\
             default_pool_size = 3\nserver_idle_timeout = 1\n",
        );
        std::fs::write(folder.join("settings.ini"), settings).unwrap();
        let mut command = as_server(Path::new(program));
        command.arg("-q").arg(folder.join("settings.ini")).stderr(Stdio::null()).stdout(Stdio::null());
        Some(Self { process: command.spawn().unwrap(), folder, port })
    }

    /// Returns the configuration for a database behind the pooler.
    pub(crate) fn config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").dbname(database);
        config
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
