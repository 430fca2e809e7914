//! A real balancer in front of nodes, set up as `deploy/haproxy/haproxy.cfg` has it.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use antiphon_loadtest::ServerUrl;

use super::{network::ReservedPort, nodes::http, people::PATIENCE, process::Scratch};

/// HAProxy, gone when dropped.
pub struct Balancer {
    port: ReservedPort,
    child: Child,
    _files: Scratch,
}

impl Balancer {
    /// One for these nodes, once it has found one that is ready.
    pub async fn start(nodes: &[ServerUrl]) -> Self {
        let (port, files) = (ReservedPort::take().expect("a port"), Scratch::new());
        let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/haproxy/haproxy.cfg");
        let mut settings =
            fs::read_to_string(settings).expect("it is there").replace("@PORT@", &port.port().to_string());
        for (index, node) in nodes.iter().enumerate() {
            let address = node.http("/").socket_addrs(|| None).expect("an address")[0];
            settings += &format!("    server node-{index} {address} check\n");
        }
        let file = files.path().join("haproxy.cfg");
        fs::write(&file, settings).expect("our folder");
        // It ends with the thread that starts it, however that ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "haproxy", "-db", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("setpriv (util-linux) and haproxy run (scripts/setup test installs them)");
        let balancer = Self { port, child, _files: files };
        balancer.until_ready().await;
        balancer
    }

    pub fn url(&self) -> ServerUrl {
        format!("http://127.0.0.1:{}", self.port.port()).parse().expect("a URL")
    }

    async fn until_ready(&self) {
        let wait = async {
            loop {
                let ready = http().get(self.url().http("/health/ready")).send().await;
                if ready.is_ok_and(|ready| ready.status().is_success()) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the balancer starts");
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
