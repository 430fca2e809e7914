//! A real mail server, Debian's `aiosmtpd`, that keeps what it takes in a folder of files.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{chatters::PATIENCE, process::Scratch};

/// The server, on a port that stays the same; gone when dropped.
pub struct MailServer {
    pub address: SocketAddr,
    child: Option<Child>,
    scratch: Scratch,
    options: Vec<String>,
}

impl MailServer {
    /// Starts one and waits until it takes connections.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With options of `aiosmtpd`.
    pub async fn start_with(options: &[&str]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("bound");
        drop(free);
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut server = Self { address, child: None, scratch: Scratch::new(), options };
        server.start_again().await;
        server
    }

    /// For `notify.smtp_url`.
    pub fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    fn folder(&self) -> PathBuf {
        self.scratch.path().join("mail")
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again, with what it took before.
    pub async fn start_again(&mut self) {
        let child = Command::new("aiosmtpd")
            .args(&self.options)
            .args(["-n", "-l", &self.address.to_string(), "-c", "aiosmtpd.handlers.Mailbox"])
            .arg(self.folder())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("aiosmtpd is installed: scripts/setup test");
        self.child = Some(child);
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            assert!(ended.is_none() && Instant::now() < deadline, "it takes connections");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What it took, in no order.
    pub fn mails(&self) -> Vec<Mail> {
        let files = std::fs::read_dir(self.folder().join("new")).into_iter().flatten().flatten();
        files.filter_map(|file| std::fs::read_to_string(file.path()).ok()).map(|text| Mail::of(&text)).collect()
    }

    /// Waits for a mail.
    pub async fn mail(&self, wanted: impl Fn(&Mail) -> bool) -> Mail {
        let wait = async {
            loop {
                if let Some(mail) = self.mails().into_iter().find(&wanted) {
                    return mail;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, wait).await;
        found.unwrap_or_else(|_| panic!("it comes in time; what came: {:?}", self.mails()))
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A mail, in clear: tests write nothing that is encoded but what they say so of.
#[derive(Debug)]
pub struct Mail {
    head: Vec<(String, String)>,
    pub body: String,
}

impl Mail {
    fn of(text: &str) -> Self {
        let text = text.replace("\r\n", "\n");
        let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
        // Lines that go on begin with a space.
        let head = head.replace("\n ", " ").replace("\n\t", " ");
        let head = head.lines().filter_map(|line| line.split_once(": "));
        let head = head.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        // Quoted-printable's soft line breaks.
        Self { head, body: body.replace("=\n", "") }
    }

    /// A header's value; empty without it.
    pub fn header(&self, name: &str) -> &str {
        self.head.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The number in the text of so many digits.
    pub fn code(&self) -> String {
        let words = self.body.split(|c: char| !c.is_ascii_digit());
        words.into_iter().find(|word| word.len() == 8).expect("a code").to_owned()
    }
}
