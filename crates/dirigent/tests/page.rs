//! The web page in a real Chromium, beside what the commands say; and what browsers and others may not. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "page/browser.rs"]
mod browser;
mod common;

use browser::{Browser, ENTER, PATIENCE, TAB};
use common::{BIN, TestLab, until, with_checks};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};

const LISTEN: &str = "127.0.0.1:8090";
const PAGE: &str = "http://127.0.0.1:8090/";
const SERVICE: &str = "tcp 192.0.2.10:80";
const CHECK: &str = "type = \"tcp\"\ninterval = \"200ms\"\nwarmup = \"0ms\"";

/// The configuration with this in front of its services.
fn with(text: &str, tables: &str) -> String {
    text.replacen("\n[[service]]", &format!("\n{tables}\n\n[[service]]"), 1)
}

/// A lab whose daemon serves the page to browsers on the director.
fn lab(servers: &str, page: &str, more: &str) -> TestLab {
    let lab = TestLab::up(&["--servers", servers, "--no-daemon"]);
    let text = with(&with_checks(&lab, "", CHECK), &format!("[director.page]\nlisten = {LISTEN:?}\n{page}"));
    lab.write_config(&format!("{text}\n{more}"));
    lab.start_daemon();
    lab
}

/// Tests the page on the director.
fn browse(lab: &TestLab, test: impl FnOnce(&Browser<'_>) + Send) {
    lab.run("director", || {
        let browser = Browser::start(lab, "director");
        browser.open(PAGE);
        browser.js("performance.setResourceTimingBufferSize(100000)");
        browser.until("it shows the services", "return document.querySelector('.services tbody tr') !== null");
        test(&browser);
    });
}

/// A client that asks again and again, as long as its file is there: what kills the command does not reach the client.
struct Traffic {
    client: Child,
    file: PathBuf,
}

impl Traffic {
    fn start(lab: &TestLab, url: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let file = lab.file(&format!("traffic-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        std::fs::write(&file, "").unwrap();
        let name = file.display();
        let ask = format!("while [ -e {name} ]; do curl -s -g -o /dev/null --max-time 2 '{url}' || sleep 0.1; done");
        Self { client: lab.start("client", &["sh", "-c", &ask]), file }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
        let _ = self.client.wait();
    }
}

/// The text of a cell of a service's row.
fn cell(browser: &Browser<'_>, row: &str, column: u8) -> String {
    browser.text_of(&format!("{row} > :nth-child({column})"))
}

fn digits(text: &str) -> u64 {
    text.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap_or(u64::MAX)
}

/// `12`, `3.4 k`: how the page writes what happens each second.
fn rate(text: &str) -> f64 {
    let text = text.trim_end_matches("/s").replace(['\u{202f}', '\u{a0}'], "");
    let (number, unit) = text.split_once(' ').unwrap_or((&text, ""));
    let scale = match unit.chars().next() {
        Some('k') => 1e3,
        Some('M') => 1e6,
        Some('G') => 1e9,
        _ => 1.0,
    };
    number.parse::<f64>().unwrap_or(f64::NAN) * scale
}

#[test]
fn numbers_are_those_of_the_commands() {
    let lab = lab("2", "", "");
    browse(&lab, |browser| {
        let row = format!("tr[data-service='{SERVICE}']");
        let stats = || lab.json(&["stats", "--json"]);
        let of = |stats: &Value| {
            let all = stats["services"].as_array().unwrap();
            all.iter().find(|s| s["address"] == "192.0.2.10:80" && s["protocol"] == "tcp").unwrap().clone()
        };
        // Under traffic: a rate of the page is between those that the command says before and after it.
        let traffic = [Traffic::start(&lab, "http://192.0.2.10/"), Traffic::start(&lab, "http://192.0.2.10/")];
        for (column, key) in [(5, "connections"), (6, "in_bytes"), (7, "out_bytes")] {
            browser.until_so(&format!("{key} each second"), || {
                let says = |stats: &Value| of(stats)["rates"][key].as_f64().unwrap();
                let before = says(&stats());
                let shown = rate(&cell(browser, &row, column));
                let after = says(&stats());
                // A look is two seconds old at most, and large numbers are rounded.
                let (least, most) = (before.min(after) * 0.8 - 1.0, before.max(after) * 1.25 + 1.0);
                before > 0.0 && after > 0.0 && (least..=most).contains(&shown)
            });
        }
        browser
            .until("a line of what was", &format!("return document.querySelector(\"{row} .spark polyline\") !== null"));
        let line = browser.text(&format!("return document.querySelector(\"{row} .spark\").getAttribute('aria-label')"));
        assert!(line.starts_with("traffic of tcp 192.0.2.10:80 over ") && !line.contains("at most 0 B"), "{line}");
        // Edges with traffic are wider than those without.
        let wide = "return Math.max(...[...document.querySelectorAll('.map .edge.busy')].map((e) => Number(e.getAttribute('stroke-width'))))";
        assert!(browser.js(wide).as_f64().unwrap() > 2.0);
        drop(traffic);

        // Once nothing moves any more, they are the same to the last packet.
        let same = |what: &str, selector: &str, pointer: &str| {
            let says = || stats().pointer(pointer).and_then(Value::as_u64);
            browser.until_so(what, || says().is_some_and(|n| n > 0) && browser.number_of(selector) == says());
        };
        same("connections in all", "#sum-connections", "/total/connections");
        same("packets in", "#sum-in_packets", "/total/in_packets");
        same("packets out", "#sum-out_packets", "/total/out_packets");
        browser.until_so("connections now", || {
            let services = stats();
            let sum = |key: &str| -> u64 {
                let servers = of(&services);
                servers["servers"].as_array().unwrap().iter().map(|s| s[key].as_u64().unwrap()).sum()
            };
            (digits(&cell(browser, &row, 3)), digits(&cell(browser, &row, 4))) == (sum("active"), sum("inactive"))
        });
        assert!(cell(browser, &row, 2).contains("2/2") && cell(browser, &row, 9).contains("rr"));

        // One service, with its servers.
        browser.click(&format!("{row} a"));
        browser.until("its servers", "return document.querySelectorAll('#service tr[data-server]').length === 2");
        for server in of(&stats())["servers"].as_array().unwrap() {
            let row = format!("tr[data-server='{}']", server["address"].as_str().unwrap());
            browser.until_so("connections of a server", || {
                let now = of(&stats());
                let all = now["servers"].as_array().unwrap();
                let same = all.iter().find(|s| s["address"] == server["address"]).unwrap();
                digits(&cell(browser, &row, 6)) == same["counters"]["connections"].as_u64().unwrap()
            });
            assert!(cell(browser, &row, 2).contains("available") && cell(browser, &row, 2).contains("up since"));
            assert_eq!(digits(&cell(browser, &row, 3)), server["weight"].as_u64().unwrap());
            assert!(cell(browser, &row, 11).contains(server["next_hop"]["mac"].as_str().unwrap()));
        }

        // The walk of it, as the command tells it.
        browser.click("#show-walk");
        browser.until("the walk", "return document.querySelectorAll('#walk .way').length === 1");
        let walk = lab.json(&["walk", "--json", SERVICE]);
        let shown = browser.text_of("#walk");
        let way = &walk["ways"][0];
        for hop in ["request", "answer"].iter().flat_map(|way_of| way[*way_of].as_array().unwrap()) {
            for key in ["source", "destination"] {
                let end = hop[key].as_str().unwrap();
                // The imagined client's port may be another one each time.
                let end = if end.starts_with("198.51.100.") { end.split(':').next().unwrap() } else { end };
                assert!(shown.contains(end), "{end} of {hop:#} in {shown}");
            }
            for mac in ["source_mac", "destination_mac"].iter().filter_map(|key| hop[*key]["address"].as_str()) {
                assert!(shown.contains(mac), "{mac} in {shown}");
            }
        }
        assert!(shown.contains("(changed here)") && shown.contains(way["needs"][0].as_str().unwrap()), "{shown}");
        assert_eq!(browser.text_of("#walk .way table tbody th").matches('→').count(), 6);
    });
}

#[test]
fn what_happens_shows_with_its_reason() {
    let router =
        "[[router]]\nname = \"web\"\ninterface = \"c0\"\nvrid = 51\npriority = 150\naddresses = [\"192.0.2.99/32\"]\n";
    let lab = lab("2", "operate = true\n", router);
    browse(&lab, |browser| {
        browser.until("nothing is wrong", "return document.querySelector('#well') !== null");
        browser.until(
            "the role of its virtual router",
            "return document.querySelector('#routers').innerText.includes('master')",
        );
        assert!(browser.text_of("#routers").contains("192.0.2.99"), "{}", browser.text_of("#routers"));
        browser.click(&format!("tr[data-service='{SERVICE}'] a"));

        // A server goes down: its row, the list, the picture, the findings and the history say so, with the reason; in words
        // too, and for those who do not see it.
        let down = "nft 'add table inet gone; add chain inet gone input { type filter hook input priority 0; }; \
                    add rule inet gone input tcp dport 8080 reject with tcp reset'";
        lab.sh("server2", down);
        let row = "tr[data-server='10.0.0.3:8080']";
        browser.until("it is down", &format!("return document.querySelector(\"{row} .bad\")?.innerText === '✕ down'"));
        let health = || {
            let servers = lab.json(&["server", "list", "--json"]);
            let all = servers.as_array().unwrap().clone();
            all.into_iter().find(|s| s["address"] == "10.0.0.3:8080").unwrap()["health"].clone()
        };
        let why = health()["why"].as_str().unwrap().to_owned();
        assert!(cell(browser, row, 2).contains(&why), "{why} in {}", cell(browser, row, 2));
        assert!(browser.text_of(&format!("tr[data-service='{SERVICE}'] > :nth-child(2)")).contains("▲ 1/2"));
        browser.until("the picture", "return document.querySelectorAll('.map .edge.cut').length >= 1");
        let event = "tr[data-event='health']";
        browser.until("the history", &format!("return document.querySelector(\"{event}\") !== null"));
        let told = browser.text_of(event);
        assert!(told.contains("server is down") && told.contains("10.0.0.3:8080 of tcp 192.0.2.10:80"), "{told}");
        assert!(told.contains(&why), "{told}");
        browser.until(
            "a screen reader is told",
            "return document.querySelector('#news').textContent.includes('server is down')",
        );
        let problems = lab.json(&["status", "--json"])["problems"].clone();
        for problem in problems.as_array().unwrap() {
            for key in ["place", "what", "remedy"] {
                let text = problem[key].as_str().unwrap();
                browser.until_so("the findings", || browser.text_of("#problems").contains(text));
            }
        }
        browser.look(1280, 1400, "light");
        browser.picture("down");

        // And up again.
        lab.sh("server2", "nft delete table inet gone");
        browser
            .until("it is up", &format!("return document.querySelector(\"{row} .good\")?.innerText === '● available'"));
        browser.until("the history of both", &format!("return document.querySelectorAll(\"{event}\").length >= 2"));
        let told = browser.text_of(&format!("{event}:first-child, {event}"));
        assert!(told.contains("server is up"), "{told}");
        browser.until("nothing is wrong any more", "return document.querySelector('#well') !== null");

        // What is lost, by reason, in the documentation's words.
        lab.dirigent(&["service", "add", "tcp:192.0.2.10:81"]);
        lab.sh("client", "for i in 1 2 3; do curl -s --max-time 2 http://192.0.2.10:81/ && exit 1; done; true");
        let lost = "tr[data-reason='no_server']";
        browser.until_so("the loss", || {
            browser.number_of(&format!("{lost} > :nth-child(2)")) == Some(lab.count("no_server"))
        });
        let means = cell(browser, lost, 4);
        assert!(means.contains("No real server can take the connection"), "{means}");
        assert!(cell(browser, lost, 5).contains("dirigent server list shows why"), "{}", cell(browser, lost, 5));
        assert!(lab.count("no_server") >= 3);

        // Here operators may do more than read: an examination.
        browser.click("#examine");
        browser.until(
            "what it found",
            "return document.querySelector('#findings [role=status]').innerText.includes('paths tried')",
        );
        let found = browser.text_of("#findings [role=status]");
        let diagnosis: Value = {
            let text = lab.sh("director", &format!("{BIN} --instance {} doctor --json || true", lab.name()));
            serde_json::from_str(&text).unwrap()
        };
        assert!(found.starts_with(&format!("{} paths tried", diagnosis["paths"].as_array().unwrap().len())), "{found}");
        assert_eq!(browser.console(), [] as [String; 0]);

        // The daemon is gone, which is said, and comes back by itself.
        lab.kill_daemon();
        browser
            .until("it says so", "return document.querySelector('#gone').innerText.includes('does not answer since')");
        assert!(browser.text("return document.title").starts_with('✕'));
        browser.picture("gone");
        lab.start_daemon();
        browser.until(
            "it is back",
            "return document.querySelector('#gone').innerText === '' && !document.title.startsWith('✕')",
        );
        assert!(browser.text_of("#news").contains("answers again"), "{}", browser.text_of("#news"));
        browser.until("and goes on", &format!("return document.querySelector(\"{row} .good\") !== null"));
    });
}

/// Whether text can be read: the contrast of every text against what is behind it, by the rules of WCAG 2.
const CONTRAST: &str = r"
const parse = (text) => text.match(/[\d.]+/g).map(Number);
const light = ([r, g, b]) => {
  const part = (v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
};
const behind = (node) => {
  for (let at = node; at; at = at.parentElement) {
    const colour = parse(getComputedStyle(at).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
  return parse(getComputedStyle(document.documentElement).backgroundColor);
};
const found = [];
let looked = 0;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || node.closest('.hidden, [hidden], noscript, title, desc')) continue;
  const style = getComputedStyle(node);
  const svg = node.closest('svg') !== null;
  // Boxes of the picture have a ground of their own.
  const box = node.closest('g')?.querySelector('rect');
  const ground = box ? parse(getComputedStyle(box).fill) : behind(node);
  const text = parse(svg ? style.fill : style.color);
  const [a, b] = [light(text), light(ground)];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  looked += 1;
  if (ratio < 4.5) found.push(`${ratio.toFixed(2)}: ${walker.currentNode.data}`);
}
return [looked, found];
";

/// What has no name, label, heading or scope that it needs.
const NAMELESS: &str = r"
const found = [];
const say = (what, node) => found.push(`${what}: ${node.outerHTML.slice(0, 120)}`);
for (const node of document.querySelectorAll('input, select, textarea')) if (!node.labels?.length) say('no label', node);
for (const node of document.querySelectorAll('button, a')) if (!(node.innerText.trim() || node.getAttribute('aria-label'))) say('no name', node);
for (const node of document.querySelectorAll('svg, img')) {
  const by = (node.getAttribute('aria-labelledby') ?? '').split(' ').filter(Boolean).map((id) => document.getElementById(id)?.textContent);
  const named = node.getAttribute('aria-label') || node.getAttribute('alt') || (by.length > 0 && by.every(Boolean));
  if (!named || node.getAttribute('role') !== 'img') say('no name', node);
}
for (const node of document.querySelectorAll('table')) {
  if (!node.caption?.innerText && !node.caption?.textContent) say('no caption', node);
  for (const th of node.querySelectorAll('th')) if (!th.getAttribute('scope')) say('no scope', th);
}
for (const node of document.querySelectorAll('section')) {
  const by = document.getElementById(node.getAttribute('aria-labelledby'))?.textContent ?? node.getAttribute('aria-label');
  if (!node.hidden && !by) say('no heading', node);
}
const ids = [...document.querySelectorAll('[id]')].map(({ id }) => id);
if (new Set(ids).size !== ids.length) found.push(`ids twice: ${ids}`);
for (const name of ['main', 'header', 'nav', 'footer', 'h1']) if (document.querySelectorAll(name).length !== 1) found.push(`not one ${name}`);
if (!document.documentElement.lang) found.push('no language');
let level = 1;
for (const node of document.querySelectorAll('h1, h2, h3, h4')) {
  const now = Number(node.localName[1]);
  if (now > level + 1) say('a level is left out', node);
  level = now;
}
if (document.querySelector('[role=alert]') === null || document.querySelector('[aria-live]') === null) found.push('nothing is told');
return found;
";

/// What sticks out to the right.
const WIDER: &str = r"
const wide = document.documentElement.clientWidth;
const out = [...document.querySelectorAll('body *')].filter((e) => !e.closest('.scroll, .hidden, .skip') && e.getBoundingClientRect().right > wide + 1);
return [document.documentElement.scrollWidth - wide, out.map((e) => e.outerHTML.slice(0, 100))];
";

#[test]
fn everybody_can_read_it_on_every_screen() {
    let lab = lab("3", "", "");
    lab.sh("server3", "ip link set eth0 down");
    until(&lab, "a server is down", PATIENCE, || lab.dirigent(&["server", "list"]).0.contains(" down "));
    browse(&lab, |browser| {
        let _traffic = Traffic::start(&lab, "http://192.0.2.10/");
        let hash = "location.hash = '#service=tcp%20192.0.2.10%3A80'";
        browser.js(hash);
        browser.until("its servers", "return document.querySelectorAll('#service tr[data-server]').length === 3");
        browser.click("#show-walk");
        browser.until("the walk", "return document.querySelector('#walk .way') !== null");
        browser.js("document.querySelectorAll('details').forEach((one) => (one.open = true))");
        // Once there are lines.
        browser.until("lines", "return document.querySelectorAll('.spark polyline').length > 3");
        for (name, width, height, scheme) in [
            ("light", 1280, 1700, "light"),
            ("dark", 1280, 1700, "dark"),
            ("phone", 360, 2400, "light"),
            ("phone-dark", 360, 2400, "dark"),
            ("tablet", 700, 1800, "light"),
        ] {
            browser.look(width, height, scheme);
            browser.js("window.dispatchEvent(new Event('resize'))");
            let wider = browser.js(WIDER);
            assert_eq!(wider, json!([0, []]), "{name}: {wider:#}");
            let dark = browser.js("return matchMedia('(prefers-color-scheme: dark)').matches");
            assert_eq!(dark, scheme == "dark");
            let contrast = browser.js(CONTRAST);
            assert!(contrast[0].as_u64().unwrap() > 100, "{contrast}");
            assert_eq!(contrast[1], json!([]), "{name}");
            assert_eq!(browser.js(NAMELESS), json!([]), "{name}");
            browser.picture(name);
        }
        // The two themes are two.
        let ground = "return getComputedStyle(document.body).backgroundColor";
        browser.look(1280, 900, "dark");
        let dark = browser.text(ground);
        browser.look(1280, 900, "light");
        assert_ne!(browser.text(ground), dark);

        // What is bad is not said by a colour alone.
        let marked = browser.text_of("#service .bad, .services .bad, .services .wait, #history .bad");
        assert!(marked.split(" | ").all(|text| text.starts_with(['✕', '▲', '●'])), "{marked}");
        // Nothing moves for whoever does not want it.
        let moves = "return getComputedStyle(document.querySelector('.map .edge')).transitionDuration";
        assert_ne!(browser.text(moves), "0s");
        let features = json!({ "features": [{ "name": "prefers-reduced-motion", "value": "reduce" }] });
        browser.devtools("Emulation.setEmulatedMedia", features);
        assert_eq!(browser.text(moves), "0s");

        // Nothing is asked of anybody else, nothing is wrong, and a page could not do otherwise.
        let origins = "return [...new Set(performance.getEntries().filter((e) => e.name.includes('://')).map((e) => new URL(e.name).origin))]";
        assert_eq!(browser.js(origins), json!([PAGE.trim_end_matches('/')]));
        let asked = browser.js("return performance.getEntriesByType('resource').length");
        assert!(asked.as_u64().unwrap() > 15, "{asked}");
        assert_eq!(browser.console(), [] as [String; 0]);
        let elsewhere = "return fetch('http://192.0.2.10/').then(() => 'answered', () => 'refused')";
        assert_eq!(browser.text(elsewhere), "refused");
        assert!(browser.console().iter().any(|line| line.contains("Content Security Policy")));
        let inline = "const s = document.createElement('script'); try { s.textContent = 'window.ran = 1'; document.body.append(s); } catch {} return window.ran ?? 'not run'";
        assert_eq!(browser.text(inline), "not run");
    });
}

#[test]
fn keys_are_enough() {
    let lab = lab("2", "", "");
    browse(&lab, |browser| {
        let focus = || {
            browser.text(
                "const e = document.activeElement; return e.id || e.className || (e.innerText ?? '').slice(0, 40)",
            )
        };
        // Whoever cannot see where he is is lost.
        let seen = "const s = getComputedStyle(document.activeElement); return s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2";
        browser.press(TAB);
        assert_eq!(focus(), "skip");
        assert_eq!(browser.js("return document.activeElement.getBoundingClientRect().left >= 0"), true, "it shows");
        browser.press(ENTER);
        assert_eq!(focus(), "main");
        let mut way = Vec::new();
        let mut to = |wanted: &str| {
            for _ in 0..40 {
                browser.press(TAB);
                assert_eq!(browser.js(seen), true, "{}", focus());
                way.push(focus());
                if focus() == wanted {
                    return;
                }
            }
            panic!("{wanted} is not reached: {way:?}");
        };
        to("filter");
        browser.press("2001:");
        browser.until("only these", "return [...document.querySelectorAll('.services tbody th')].every((e) => e.innerText.includes('2001:')) && document.querySelectorAll('.services tbody tr').length > 0");
        assert_eq!(focus(), "filter", "it is kept while answers come");
        browser.press("nonsense");
        browser.until("none", "return document.querySelector('#found').innerText.includes('No service has')");
        browser.press(&"\u{e003}".repeat("2001:nonsense".len()));
        browser.until("all again", "return document.querySelectorAll('.services tbody tr').length > 2");
        let first = browser.text("return document.querySelector('.services tbody a').innerText");
        to(&first);
        // It is there after a few answers, too.
        let looks = browser.js("return performance.getEntriesByType('resource').length").as_u64().unwrap();
        browser
            .until("more answers", &format!("return performance.getEntriesByType('resource').length > {}", looks + 8));
        assert_eq!(focus(), first);
        browser.press(ENTER);
        browser.until("its part, which has the focus", "return document.activeElement.id === 'service-title'");
        to("show-walk");
        browser.press(ENTER);
        browser.until(
            "the walk",
            "return document.querySelector('#walk .way') !== null && document.activeElement.id === 'walk-title'",
        );
        // Back by Shift and Tab.
        for _ in 0..20 {
            if focus() == "close" {
                break;
            }
            browser.js("return null");
            browser.press_with_shift(TAB);
        }
        assert_eq!(focus(), "close");
        browser.press(ENTER);
        browser.until(
            "closed",
            "return document.querySelector('#service').hidden && document.querySelector('#walk').hidden",
        );
        assert_eq!(focus(), "services");
        // Read-only: no button that does anything to the director.
        assert_eq!(browser.js("return document.querySelector('#examine')"), Value::Null);
    });
}

/// What a page shows of many services stays small, and whoever filters finds each. DIRIGENT_MANY=10000: so many; a daemon that
/// was built without optimisation takes minutes to begin with these.
#[test]
fn many_services_do_not_hang_the_browser() {
    let many: u64 = std::env::var("DIRIGENT_MANY").ok().map_or(2_000, |text| text.parse().unwrap());
    let lab = lab("1", "", "");
    let mut text = String::from("version = 1\n");
    for n in 0..many {
        text += &format!(
            "[[service]]\nprotocol = \"tcp\"\naddress = \"10.77.{}.{}:80\"\nserver = [{{ address = \"10.0.0.2:8080\" }}]\n",
            n / 250,
            n % 250 + 1
        );
    }
    let file = lab.file("many.toml");
    std::fs::write(&file, text).unwrap();
    lab.dirigent(&["config", "apply", "--yes", file.to_str().unwrap()]);
    browse(&lab, |browser| {
        let found = || browser.text_of("#found").replace('\u{202f}', "");
        browser.until_so("how many there are", || found().ends_with(&format!("of {many}")));
        assert_eq!(browser.js("return document.querySelectorAll('.services tbody tr').length"), 50);
        assert!(browser.js("return document.querySelectorAll('*').length").as_u64().unwrap() < 3000);
        assert!(browser.js("return document.querySelectorAll('.map .box.service').length").as_u64().unwrap() <= 8);
        // Drawing takes no time that anybody would notice.
        let took = browser.js("const begun = performance.now(); window.dispatchEvent(new Event('resize')); return performance.now() - begun");
        assert!(took.as_f64().unwrap() < 1000.0, "{took}");
        browser.click("#filter");
        let last = format!("10.77.{}.250", many / 250 - 1);
        browser.press(&last);
        browser.until("the one", "return document.querySelectorAll('.services tbody tr').length === 1");
        assert_eq!(browser.text_of(".services tbody th"), format!("tcp {last}:80"));
        browser.press(&"\u{e003}".repeat(last.len()));
        browser.until("all again", "return document.querySelectorAll('.services tbody tr').length === 50");
        browser.click(".pages button:last-child");
        browser.until("the next page", "return document.querySelector('#found').innerText.startsWith('51 to 100')");
    });
}

/// By curl: what a browser would send, and what it must not get.
#[test]
fn other_sites_users_and_changes_are_refused() {
    let lab = lab("1", "", "");
    // Status, headers and body.
    let ask = |arguments: &str| {
        let all = lab.sh("director", &format!("curl -sS -i --max-time 10 {arguments}"));
        let (head, body) = all.split_once("\r\n\r\n").unwrap_or((all.as_str(), ""));
        let status: u16 = head.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        (status, head.to_lowercase(), body.to_owned())
    };
    let status = |arguments: &str| ask(arguments).0;
    let (code, head, body) = ask(PAGE);
    assert_eq!((code, body.contains("<h2 id=\"services-title\">")), (200, true), "{body}");
    assert!(head.contains("content-type: text/html; charset=utf-8"), "{head}");
    for path in ["", "page/main.js", "v1/status", "v1/nothing"] {
        let (_, head, _) = ask(&format!("{PAGE}{path}"));
        for line in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self';",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "referrer-policy: no-referrer",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(head.contains(line), "{line} of /{path} in {head}");
        }
        assert!(!head.contains("access-control-allow") && !head.contains("unsafe"), "{head}");
    }
    // Another name that leads here (DNS rebinding), and other sites.
    let api = format!("{PAGE}v1/status");
    assert_eq!(status(&api), 200);
    assert_eq!(status(&format!("-H 'host: localhost:8090' {api}")), 200);
    let (code, _, body) = ask(&format!("-H 'host: evil.example:8090' {api}"));
    assert_eq!(code, 403);
    assert!(body.contains("which is no name of this host's own") && body.contains("localhost"), "{body}");
    assert_eq!(status(&format!("-H 'origin: http://evil.example' {api}")), 403);
    assert_eq!(status(&format!("-H 'sec-fetch-site: cross-site' {api}")), 403);
    assert_eq!(status(&format!("-H 'origin: http://127.0.0.1:8090' -H 'sec-fetch-site: same-origin' {api}")), 200);
    // Root may change the director, but not from here.
    let generation = || lab.json(&["status", "--json"])["daemon"]["generation"].clone();
    let before = generation();
    for (method, path) in [
        ("POST", "v1/reload"),
        ("POST", "v1/doctor"),
        ("POST", "v1/detach"),
        ("DELETE", "v1/services/tcp:192.0.2.10:80"),
    ] {
        let (code, _, body) = ask(&format!("-X {method} {PAGE}{path}"));
        assert_eq!(code, 403, "{method} {path}: {body}");
        assert!(body.contains("operate = true"), "{body}");
    }
    assert_eq!(generation(), before);
    let me = |arguments: &str| serde_json::from_str::<Value>(&ask(arguments).2).unwrap();
    assert_eq!(me(&format!("{PAGE}v1/me")), json!({ "name": "root", "operates": false }));
    let socket = format!("--unix-socket {}", common::http::socket(lab.name()));
    assert_eq!(me(&format!("{socket} http://d/v1/me"))["operates"], true);
    // Users who could not open the control socket see nothing.
    let nobody = lab.sh(
        "director",
        &format!("setpriv --reuid=65534 --regid=65534 --clear-groups curl -sS -w '\\n%{{http_code}}' {api}"),
    );
    assert!(nobody.ends_with("\n403") && nobody.contains("only root and members"), "{nobody}");
    assert!(!nobody.contains("instance"), "{nobody}");

    // With `operate` operators do from it what they may, and still no other site.
    let text = lab.config();
    lab.write_config(&text.replace("[director.page]\n", "[director.page]\noperate = true\n"));
    let (said, _) = lab.dirigent(&["reload"]);
    assert!(said.contains("page takes effect when the daemon is ended"), "{said}");
    lab.signal_daemon("-TERM");
    lab.start_daemon();
    assert_eq!(status(&format!("-X POST {PAGE}v1/reload")), 200);
    assert_eq!(status(&format!("-X POST -H 'origin: http://evil.example' {PAGE}v1/reload")), 403);
    assert_eq!(status(&format!("-X POST -H 'host: evil.example' {PAGE}v1/reload")), 403);
    assert_eq!(me(&format!("{PAGE}v1/me"))["operates"], true);

    // Off unless configured; and no address that others reach.
    let plain = text.replace(&format!("[director.page]\nlisten = {LISTEN:?}\n"), "");
    assert!(!plain.contains("director.page"));
    lab.signal_daemon("-TERM");
    lab.write_config(&plain);
    lab.start_daemon();
    assert_eq!(lab.sh("director", &format!("curl -s {PAGE} || echo closed")), "closed");
    assert_eq!(status(&format!("{socket} http://d/")), 404);
    let file = lab.file("open.toml");
    for (page, said) in [
        ("listen = \"10.0.0.1:8090\"", "listens on 10.0.0.1, for all the network and without TLS"),
        ("listen = \"0.0.0.0:8090\"", "ssh -L"),
        ("", "[director.api]"),
    ] {
        std::fs::write(&file, with(&plain, &format!("[director.page]\n{page}"))).unwrap();
        let text = lab.sh("director", &format!("{BIN} check --config {} 2>&1 && exit 1; true", file.display()));
        assert!(text.contains(said), "{text}");
    }
}
