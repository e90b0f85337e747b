//! A TCP relay that can be cut, in place of a cable.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Carries connections to an address until it is cut; then new ones again.
pub struct Relay {
    pub address: SocketAddr,
    cut: watch::Sender<u64>,
    is_held: Arc<AtomicBool>,
}

impl Relay {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (cut, cuts) = watch::channel(0);
        let is_held = Arc::<AtomicBool>::default();
        let held = is_held.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                if held.load(Ordering::Relaxed) {
                    continue;
                }
                let mut cuts = cuts.clone();
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(target).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Self { address, cut, is_held }
    }

    /// Whether new connections are hung up on.
    pub fn hold(&self, is_held: bool) {
        self.is_held.store(is_held, Ordering::Relaxed);
    }

    /// Ends every connection at once.
    pub fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }
}
