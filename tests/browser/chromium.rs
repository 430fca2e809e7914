//! Debian's Chromium without a screen, driven by the protocol that its developer tools speak.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use crate::support::process::Scratch;

/// Far above what anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const PAGE: &str = include_str!("page.html");

/// Fake devices, no questions, nothing but what a page asks for; and no page has less of the machine because another is in front.
const FLAGS: [&str; 15] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--remote-debugging-port=0",
];

/// A browser; it ends with the test.
pub(crate) struct Chromium {
    child: Child,
    tools: Mutex<Tools>,
    /// Where the test page is.
    page_url: String,
    /// Closed once the last of its processes has ended.
    ended: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
    _profile: Scratch,
}

struct Tools {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    next_id: u64,
}

impl Chromium {
    pub(crate) async fn start() -> Self {
        let profile = Scratch::new();
        let mut child = Command::new("chromium")
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("chromium is installed: scripts/setup test");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (told, address) = tokio::sync::oneshot::channel();
        let (running, ended) = std::sync::mpsc::channel();
        // Reads on to the end, so that the browser never waits for a reader.
        std::thread::spawn(move || {
            let _running = running;
            let mut told = Some(told);
            for line in stderr.lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("DevTools listening on ")
                    && let Some(told) = told.take()
                {
                    let _ = told.send(address.to_owned());
                }
            }
        });
        let address = tokio::time::timeout(PATIENCE, address).await.expect("in time").expect("it says where it is");
        let (socket, _) = connect_async(&address).await.expect("the tools answer");
        let page_url = serve_page().await;
        Self {
            child,
            tools: Mutex::new(Tools { socket, next_id: 0 }),
            page_url,
            ended: ended.into(),
            _profile: profile,
        }
    }

    /// A page of its own.
    pub(crate) async fn page(&self) -> Page<'_> {
        let target = self.call(None, "Target.createTarget", json!({ "url": self.page_url })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session =
            self.call(None, "Target.attachToTarget", attach).await["sessionId"].as_str().expect("text").to_owned();
        let page = Page { browser: self, session };
        page.until("typeof enter === 'function'", |ready| ready == true).await;
        page
    }

    /// The server's own page as a visitor sees it who was never there before.
    pub(crate) async fn visit(&self, url: &str) -> Page<'_> {
        let context = self.call(None, "Target.createBrowserContext", json!({})).await;
        let target = json!({ "url": url, "browserContextId": context["browserContextId"] });
        let target = self.call(None, "Target.createTarget", target).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session =
            self.call(None, "Target.attachToTarget", attach).await["sessionId"].as_str().expect("text").to_owned();
        let page = Page { browser: self, session };
        page.until("location.protocol !== 'about:' && document.readyState === 'complete'", |ready| ready == true).await;
        page
    }

    async fn call(&self, session: Option<&str>, method: &str, params: Value) -> Value {
        let mut tools = self.tools.lock().await;
        tools.next_id += 1;
        let id = tools.next_id;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        tools.socket.send(Message::text(message.to_string())).await.expect("sent");
        let answer = async {
            loop {
                let Some(Ok(Message::Text(text))) = tools.socket.next().await else { panic!("the browser has gone") };
                let message: Value = serde_json::from_str(&text).expect("JSON");
                if message["id"] == id {
                    return message;
                }
            }
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await.expect("the browser answers");
        assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        answer["result"].clone()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Those of its processes that outlive it by a little would write to a folder that is being removed.
        if let Ok(ended) = self.ended.get_mut() {
            let _ = ended.recv_timeout(PATIENCE);
        }
    }
}

/// A page in a browser.
pub(crate) struct Page<'a> {
    browser: &'a Chromium,
    session: String,
}

impl Page<'_> {
    /// What an expression comes to; a promise is waited for. What is thrown fails the test.
    pub(crate) async fn evaluate(&self, expression: &str) -> Value {
        self.try_evaluate(expression).await.unwrap_or_else(|thrown| panic!("{expression}: {thrown}"))
    }

    /// Likewise, or what was thrown.
    pub(crate) async fn try_evaluate(&self, expression: &str) -> Result<Value, String> {
        let params = json!({
            "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true,
        });
        let result = self.browser.call(Some(&self.session), "Runtime.evaluate", params).await;
        match result.get("exceptionDetails") {
            Some(thrown) => Err(thrown["exception"]["description"].as_str().unwrap_or("something").to_owned()),
            None => Ok(result["result"]["value"].clone()),
        }
    }

    /// What the developer tools say to something about this page.
    pub(crate) async fn tool(&self, method: &str, params: Value) -> Value {
        self.browser.call(Some(&self.session), method, params).await
    }

    /// Goes to another address; the page there has begun when this returns.
    pub(crate) async fn go(&self, url: &str) {
        self.browser.call(Some(&self.session), "Page.navigate", json!({ "url": url })).await;
    }

    /// As wide and high as a screen, in CSS pixels.
    pub(crate) async fn resize(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.browser.call(Some(&self.session), "Emulation.setDeviceMetricsOverride", size).await;
    }

    /// Leaves a picture of the page in the folder `ANTIPHON_SCREENSHOTS`, where that is set, for somebody to look at.
    pub(crate) async fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("ANTIPHON_SCREENSHOTS") else { return };
        let taken = self.tool("Page.captureScreenshot", json!({ "format": "png" })).await;
        let png = BASE64_STANDARD.decode(taken["data"].as_str().expect("a picture")).expect("base64");
        let path = Path::new(&folder).join(format!("{name}.png"));
        std::fs::write(&path, png).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// In a light or a dark scheme, as the system's settings would have it.
    pub(crate) async fn scheme(&self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.tool("Emulation.setEmulatedMedia", features).await;
        self.until("matchMedia('(prefers-color-scheme: dark)').matches", |dark| *dark == (scheme == "dark")).await;
    }

    /// Lets pages of an origin show notifications without being asked. For [`Chromium::page`]s.
    pub(crate) async fn allow_notifications(&self, origin: &str) {
        let grant = json!({ "origin": origin, "permissions": ["notifications"] });
        self.browser.call(None, "Browser.grantPermissions", grant).await;
    }

    /// The browser's id of the service worker that a page has registered.
    pub(crate) async fn service_worker(&self) -> String {
        let mut tools = self.browser.tools.lock().await;
        tools.next_id += 1;
        let enable = json!({ "id": tools.next_id, "method": "ServiceWorker.enable", "sessionId": self.session });
        tools.socket.send(Message::text(enable.to_string())).await.expect("sent");
        let told = async {
            loop {
                let Some(Ok(Message::Text(text))) = tools.socket.next().await else { panic!("the browser has gone") };
                let message: Value = serde_json::from_str(&text).expect("JSON");
                if let Some(id) = message["params"]["registrations"][0]["registrationId"].as_str() {
                    return id.to_owned();
                }
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("the browser tells of it")
    }

    /// Gives a service worker a message, as a push service does.
    pub(crate) async fn push(&self, origin: &str, service_worker: &str, data: &str) {
        let push = json!({ "origin": origin, "registrationId": service_worker, "data": data });
        self.browser.call(Some(&self.session), "ServiceWorker.deliverPushMessage", push).await;
    }

    /// Calls a function of the page with an argument.
    pub(crate) async fn call(&self, function: &str, argument: Value) -> Value {
        self.evaluate(&format!("{function}({argument})")).await
    }

    /// Waits until an expression comes to what is wanted; that.
    pub(crate) async fn until(&self, expression: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let value = self.evaluate(expression).await;
            if wanted(&value) {
                return value;
            }
            if std::time::Instant::now() > deadline {
                let events = "page.events.slice(-12).map((event) => [event.type, event.payload && event.payload.error, event.error])";
                let events = self.try_evaluate(events).await;
                let ways = self.try_evaluate("ways()").await;
                let text = self.try_evaluate("document.body.innerText").await;
                panic!("{expression} stays {value}; {ways:?}; last events: {events:?}; the page says {text:?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Serves the page, for as long as the test runs; where.
async fn serve_page() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let page = axum::routing::get(|| async { axum::response::Html(PAGE) });
    let router = axum::Router::new().fallback(page);
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/")
}
