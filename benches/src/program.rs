//! The program as a child process with settings of its own, and the certificates and ports that it and its peers need.

use std::{
    fs,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tombolo_admin::client::{order, segment};
use tombolo_net::Authority;

/// The one local domain.
pub const LOCAL: &str = "sip.localhost";

/// The running program; it ends with this value.
pub struct Program {
    child: Child,
    folder: TempDir,
    /// Where partners reach it.
    pub xmpp: SocketAddr,
    /// Where phones reach it in clear.
    pub sip_tcp: SocketAddr,
    /// Where phones reach it by TLS.
    pub sip_tls: SocketAddr,
}

impl Program {
    /// Starts `binary` for partners whose streams all end at `partner_at`; ready when this returns.
    pub async fn start(
        binary: &Path,
        partners: &[String],
        partner_at: SocketAddr,
        folder: TempDir,
    ) -> io::Result<Self> {
        let [xmpp, sip_tcp, sip_tls, admin] = [free_port()?, free_port()?, free_port()?, free_port()?];
        let certificates = certificates(folder.path());
        let authority = Authority::open_or_create(&certificates).map_err(io::Error::other)?;
        for name in partners.iter().map(String::as_str).chain([LOCAL]) {
            authority.issue(name, &[name]).map_err(io::Error::other)?;
        }
        let shown = certificates.display();
        let mut settings = format!(
            "role = \"all-in-one\"\ndata_dir = \"{data}\"\n\
             [[domain]]\nname = \"{LOCAL}\"\nhome = {{ kind = \"built-in\" }}\n\
             certificate = \"{shown}/{LOCAL}.pem\"\nkey = \"{shown}/{LOCAL}.key\"\n\
             [xmpp]\nlisten = [\"{xmpp}\"]\ndirect_tls_listen = []\ntrust = \"{shown}/ca.pem\"\n\
             [sip]\nlisten = [\"tls:{sip_tls}\", \"tcp:{sip_tcp}\"]\nwatcher_interval = \"0s\"\n\
             [xmpp.limits]\nstanzas_per_second = 10000000\nbytes_per_second = 10000000000\n\
             [store]\npath = \"{data}/state.redb\"\n[accounts]\nfile = \"{data}/accounts.toml\"\n\
             [admin]\nlisten = \"{admin}\"\n[log]\nlevel = \"warn\"\n",
            data = folder.path().display(),
        );
        for partner in partners {
            settings.push_str(&format!(
                "[[partner]]\ndomain = \"{partner}\"\nkind = \"federated\"\n\
                 authenticate = [\"sasl-external\", \"tls-dialback\"]\nproxy = \"{partner_at}\"\n"
            ));
        }
        let file = folder.path().join("tombolo.toml");
        fs::File::create(&file)?.write_all(settings.as_bytes())?;
        let child =
            Command::new(binary).args(["run", "--config"]).arg(&file).stdout(Stdio::null()).spawn()?;
        let mut program = Self { child, folder, xmpp, sip_tcp, sip_tls };
        program.await_ready().await?;
        Ok(program)
    }

    async fn await_ready(&mut self) -> io::Result<()> {
        for _ in 0..500 {
            if TcpStream::connect(self.sip_tls).await.is_ok()
                && self.folder.path().join("admin.sock").exists()
            {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("tombolo ended: {status}")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(io::Error::other("tombolo is not ready after 10 s"))
    }

    /// Adds a user who lets everybody of the partners watch.
    pub async fn add_user(&self, name: &str) -> io::Result<()> {
        let path = format!("/api/v1/users/{}/add", segment(&format!("{name}@{LOCAL}")));
        let body = json!({ "password": PASSWORD, "approve": "all" });
        let _: Value = order(self.folder.path(), &path, &body).await.map_err(io::Error::other)?;
        Ok(())
    }

    /// Its data directory.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The password of every user.
pub const PASSWORD: &str = "bench";

/// The folder of certificates inside the program's folder.
pub fn certificates(folder: &Path) -> PathBuf {
    folder.join("certs")
}

/// A port of loopback that was free a moment ago.
pub fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
