//! nginx, set up as `deploy/nginx/nginx.conf` has it, in front of three real nodes.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    process::{Child, Command, Stdio},
    time::Duration,
};

use antiphon_loadtest::ServerUrl;
use reqwest::StatusCode;

use crate::{
    read,
    support::{
        network::ReservedPort,
        nodes::{Nodes, http, until_heard},
        people::{PATIENCE, Person, make_channel},
        process::Scratch,
    },
};

/// A running nginx, gone when dropped.
struct Nginx {
    port: ReservedPort,
    child: Child,
    files: Scratch,
}

impl Nginx {
    async fn start(nodes: &[ServerUrl]) -> Self {
        let (port, files) = (ReservedPort::take().expect("a port"), Scratch::new());
        let address = |node: &ServerUrl| node.http("/").socket_addrs(|| None).expect("an address")[0];
        let servers: Vec<String> =
            nodes.iter().map(|node| format!("server {} max_fails=1 fail_timeout=2s;", address(node))).collect();
        // Where it may write.
        let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {}/{kind};", files.path().display()));
        let settings = read("deploy/nginx/nginx.conf")
            .replace("@PORT@", &format!("127.0.0.1:{}", port.port()))
            .replace("        @NODES@", &servers.join("\n"))
            .replace(
                "\nhttp {\n",
                &format!(
                    "\npid {0}/pid;\nhttp {{\n    access_log off;\n{1}\n",
                    files.path().display(),
                    places.join("\n")
                ),
            );
        let file = files.path().join("nginx.conf");
        fs::write(&file, settings).expect("our folder");
        let checked = Command::new("nginx").args(["-t", "-e", "stderr", "-c"]).arg(&file).output();
        let checked = checked.expect("nginx runs (scripts/setup test installs it)");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        // It ends with the thread that starts it, however that ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "nginx", "-e", "stderr", "-g", "daemon off;", "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("setpriv (util-linux) runs");
        let nginx = Self { port, child, files };
        nginx.until_ready().await;
        nginx
    }

    fn url(&self) -> ServerUrl {
        format!("http://127.0.0.1:{}", self.port.port()).parse().expect("a URL")
    }

    async fn until_ready(&self) {
        let wait = async {
            while !http()
                .get(self.url().http("/health/ready"))
                .send()
                .await
                .is_ok_and(|ready| ready.status().is_success())
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("nginx starts");
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master takes its workers with it.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
        let _ = self.files.path();
    }
}

/// A client at another address of this machine.
fn client_at(last: u8) -> reqwest::Client {
    let _ = http();
    reqwest::Client::builder().local_address(IpAddr::from(Ipv4Addr::new(127, 0, 0, last))).build().expect("a client")
}

#[tokio::test(flavor = "multi_thread")]
async fn people_come_through_nginx_and_stay_when_a_node_goes() {
    let mut cluster = Nodes::start_with(3, &[("ANTIPHON_SERVER__TRUSTED_PROXIES", "127.0.0.1")]).await;
    let nodes: Vec<ServerUrl> = cluster.nodes.iter().map(|node| node.url()).collect();
    let nginx = Nginx::start(&nodes).await;
    let channel = make_channel(&cluster.nodes[0], "lobby", 20).await;
    let mut people = Vec::new();
    for index in 0..4 {
        people.push(Person::join_at(nginx.url(), nodes.clone(), &format!("person-{index}"), channel).await);
    }
    let mut connected = Vec::new();
    for index in 0..3 {
        connected.push(cluster.health(index).await["activity"]["udp_sessions"].as_u64().expect("a count"));
    }
    assert!(connected.iter().filter(|count| **count > 0).count() >= 2, "spread over the nodes: {connected:?}");
    let leaving = connected.iter().position(|count| *count > 0).expect("somebody is somewhere");

    // The node drains and ends; requests and newcomers go to the others, and none sees an error.
    cluster.nodes[leaving].signal("TERM");
    for index in 0..60 {
        let answer = http().get(nginx.url().http("/api/channels")).send().await.expect("answered");
        assert_eq!(answer.status(), StatusCode::OK, "request {index}");
    }
    people.push(Person::join_at(nginx.url(), nodes.clone(), "newcomer", channel).await);
    cluster.nodes[leaving].ended().await;
    for index in 0..20 {
        let answer = http().get(nginx.url().http("/health/ready")).send().await.expect("answered");
        assert_eq!(answer.status(), StatusCode::OK, "request {index} after its end");
    }
    let speaker = people.remove(0);
    until_heard(&speaker, &mut people.iter_mut().collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_count_for_the_client_and_not_for_nginx() {
    let settings =
        [("ANTIPHON_SERVER__TRUSTED_PROXIES", "127.0.0.1"), ("ANTIPHON_LIMITS__HTTP_PER_MINUTE_PER_ADDRESS", "30")];
    let node = crate::support::process::Process::start(&settings).await;
    let nginx = Nginx::start(&[node.url()]).await;
    let url = nginx.url().http("/api/channels");
    let greedy = client_at(2);
    let mut refused = false;
    for _ in 0..200 {
        refused = greedy.get(url.clone()).send().await.expect("answered").status() == StatusCode::TOO_MANY_REQUESTS;
        if refused {
            break;
        }
    }
    assert!(refused, "one address has its limit");
    let forged = greedy.get(url.clone()).header("x-forwarded-for", "203.0.113.9").send().await.expect("answered");
    assert_eq!(forged.status(), StatusCode::TOO_MANY_REQUESTS, "whatever it says of itself");
    let other = client_at(3).get(url).send().await.expect("answered");
    assert_eq!(other.status(), StatusCode::OK, "another address has its own");
}
