//! A real Chromium on a host of a lab, driven by WebDriver.

use super::{TestLab, until};
use fantoccini::actions::{InputSource as _, KeyAction, KeyActions};
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder};
use hyper::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use url::{ParseError, Url};

/// Where the driver listens, in the host's own network namespace.
const DRIVER: &str = "127.0.0.1:9515";
/// What a page may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Keys, as WebDriver calls them.
pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";

/// The browser; all of it must be used in the namespace that it was started in.
pub struct Browser<'l> {
    lab: &'l TestLab,
    driver: Child,
    profile: PathBuf,
    runtime: Runtime,
    client: Client,
}

/// A command of the driver's own, beside those of WebDriver.
#[derive(Debug)]
struct Own {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Own {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }
    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}

impl<'l> Browser<'l> {
    /// Starts driver and browser on this host, whose namespace the caller is in.
    pub fn start(lab: &'l TestLab, host: &str) -> Self {
        let profile = lab.file("browser");
        let _ = std::fs::remove_dir_all(&profile);
        std::fs::create_dir_all(&profile).unwrap();
        let port = DRIVER.rsplit(':').next().unwrap();
        let driver = lab.start(host, &["chromedriver", &format!("--port={port}"), "--log-level=SEVERE"]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listening = || std::net::TcpStream::connect(DRIVER).is_ok();
        until(lab, "the driver listens", PATIENCE, listening);
        let found = Command::new("sh").args(["-c", "command -v chromium"]).output().unwrap();
        let binary = String::from_utf8(found.stdout).unwrap().trim().to_owned();
        let arguments = [
            // Root's browser has no sandbox of its own.
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,900",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let capabilities = json!({
            "goog:chromeOptions": { "args": arguments, "binary": binary },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let Value::Object(capabilities) = capabilities else { unreachable!() };
        let client = runtime
            .block_on(
                ClientBuilder::new(HttpConnector::new())
                    .capabilities(capabilities)
                    .connect(&format!("http://{DRIVER}")),
            )
            .unwrap_or_else(|e| panic!("{e}"));
        Self { lab, driver, profile, runtime, client }
    }

    /// Opens an address.
    pub fn open(&self, address: &str) {
        self.runtime.block_on(self.client.goto(address)).unwrap();
    }

    /// What a script returns.
    pub fn js(&self, script: &str) -> Value {
        let answer = self.runtime.block_on(self.client.execute(script, Vec::new()));
        answer.unwrap_or_else(|e| panic!("{script}: {e}"))
    }

    /// What a script returns, as text.
    pub fn text(&self, script: &str) -> String {
        self.js(script).as_str().map(str::to_owned).unwrap_or_default()
    }

    /// All text of the elements of a selector, joined; what is hidden too.
    pub fn text_of(&self, selector: &str) -> String {
        self.text(&format!("return [...document.querySelectorAll({selector:?})].map((e) => e.textContent).join(' | ')"))
    }

    /// The number in an element, whatever stands between its digits.
    pub fn number_of(&self, selector: &str) -> Option<u64> {
        let digits: String = self.text_of(selector).chars().filter(char::is_ascii_digit).collect();
        digits.parse().ok()
    }

    /// Waits until a script returns true; says what the page shows when it does not.
    pub fn until(&self, what: &str, script: &str) {
        self.until_so(what, || self.js(script) == true);
    }

    /// Waits until that is so.
    pub fn until_so(&self, what: &str, mut so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !so() {
            let shown = || self.text("return document.body.innerText");
            assert!(begun.elapsed() < PATIENCE, "{what}\n{}\n{:?}\n{}", shown(), self.console(), self.lab.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Presses keys, one after the other, wherever the focus is.
    pub fn press(&self, keys: &str) {
        let mut actions = KeyActions::new("keyboard".into());
        for value in keys.chars() {
            actions = actions.then(KeyAction::Down { value }).then(KeyAction::Up { value });
        }
        self.runtime.block_on(self.client.perform_actions(actions)).unwrap();
    }

    /// Presses the mouse on what a selector finds.
    pub fn click(&self, selector: &str) {
        let found = self.runtime.block_on(self.client.find(fantoccini::Locator::Css(selector)));
        let element = found.unwrap_or_else(|e| panic!("{selector}: {e}"));
        self.runtime.block_on(element.click()).unwrap();
    }

    fn own(&self, path: &'static str, body: Value) -> Value {
        self.runtime.block_on(self.client.issue_cmd(Own { path, body })).unwrap()
    }

    /// A command of Chrome's DevTools.
    pub fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.own("goog/cdp/execute", json!({ "cmd": command, "params": parameters }))
    }

    /// What the console says since it was last asked: its warnings and errors.
    pub fn console(&self) -> Vec<String> {
        let all = self.own("se/log", json!({ "type": "browser" }));
        let bad = |entry: &&Value| ["WARNING", "SEVERE"].contains(&entry["level"].as_str().unwrap_or_default());
        all.as_array().unwrap().iter().filter(bad).map(Value::to_string).collect()
    }

    /// Looks as on a screen of this size, in `light` or `dark`.
    pub fn look(&self, width: u32, height: u32, scheme: &str) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics);
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Keeps a picture below target/; where it is.
    pub fn picture(&self, name: &str) -> PathBuf {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page");
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join(format!("{name}.png"));
        let bytes = self.runtime.block_on(self.client.screenshot()).unwrap();
        std::fs::write(&file, bytes).unwrap();
        file
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        // Ends the browser with all its processes.
        let _ = self.runtime.block_on(self.client.clone().close());
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

impl Browser<'_> {
    /// Presses a key while Shift is held.
    pub fn press_with_shift(&self, key: &str) {
        const SHIFT: char = '\u{e008}';
        let mut actions = KeyActions::new("keyboard".into()).then(KeyAction::Down { value: SHIFT });
        for value in key.chars() {
            actions = actions.then(KeyAction::Down { value }).then(KeyAction::Up { value });
        }
        self.runtime.block_on(self.client.perform_actions(actions.then(KeyAction::Up { value: SHIFT }))).unwrap();
    }
}
