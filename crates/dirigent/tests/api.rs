//! The control API as its description says it: every path, every method, every key of every body; what is no request;
//! clients that behave badly; and the stream of events.

mod common;

use common::TestLab;
use common::http::{Answer, ask, send, socket};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SERVICE: &str = "tcp:192.0.2.10:80";

/// An operation of the description.
struct Operation {
    path: String,
    method: String,
    what: Value,
}

/// The description, and the operations that it has.
struct Api {
    all: Value,
}

impl Api {
    fn of(socket: &str) -> Self {
        let Answer { status: 200, body: all, .. } = ask(socket, "GET", "/v1/openapi.json", &Value::Null) else {
            panic!()
        };
        assert_eq!(all["openapi"], "3.1.0");
        Self { all }
    }
    fn operations(&self) -> Vec<Operation> {
        let paths = self.all["paths"].as_object().unwrap();
        let of = |(path, item): (&String, &Value)| {
            let item = item.as_object().unwrap().clone();
            let path = path.clone();
            item.into_iter().map(move |(method, what)| Operation { path: path.clone(), method, what })
        };
        paths.iter().flat_map(of).collect()
    }
    /// The schema, which may refer to others.
    fn validator(&self, schema: &Value) -> jsonschema::Validator {
        let mut whole = schema.clone();
        whole["components"] = self.all["components"].clone();
        jsonschema::draft202012::new(&whole).unwrap()
    }
    fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(name) => self.all.pointer(name.trim_start_matches('#')).unwrap(),
            None => schema,
        }
    }
    /// The answer is one that the operation is said to give, with the body that it is said to have.
    fn check(&self, operation: &Operation, answer: &Answer) {
        let Operation { path, method, what } = operation;
        let response = &what["responses"][answer.status.to_string()];
        assert!(response.is_object(), "{method} {path} answers {answer:?}, which is not described");
        let schema = &response["content"]["application/json"]["schema"];
        let errors: Vec<_> = self.validator(schema).iter_errors(&answer.body).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{method} {path}: {errors:?} in {answer:?}");
        if answer.status >= 400 {
            let problems = answer.body["problems"].as_array().unwrap();
            assert!(!problems.is_empty(), "{method} {path}: {answer:?}");
            for problem in problems {
                for part in ["what", "remedy"] {
                    assert_ne!(problem[part], "", "{method} {path}: {part} of {answer:?}");
                }
            }
        }
    }
}

impl Operation {
    /// Its path with names that there are.
    fn place(&self, server: &str) -> String {
        self.path.replace("{service}", SERVICE).replace("{server}", server)
    }
    fn parameters(&self, place: &str) -> Vec<(String, Value)> {
        let all = self.what["parameters"].as_array().cloned().unwrap_or_default();
        let of = all.into_iter().filter(|p| p["in"] == place);
        of.map(|p| (p["name"].as_str().unwrap().to_owned(), p["schema"].clone())).collect()
    }
    fn body(&self) -> Option<&Value> {
        Some(&self.what["requestBody"]["content"]["application/json"]["schema"]).filter(|schema| schema.is_object())
    }
    /// What stands behind the `?`, if it cannot do without: as its description has it for an example.
    fn needed(&self) -> Option<String> {
        let all = self.what["parameters"].as_array().cloned().unwrap_or_default();
        let needed = all.iter().filter(|p| p["in"] == "query" && p["required"] == true);
        let pairs: Vec<_> =
            needed.map(|p| format!("{}={}", p["name"].as_str().unwrap(), p["example"].as_str().unwrap())).collect();
        (!pairs.is_empty()).then(|| format!("?{}", pairs.join("&")))
    }
    /// A body that it takes.
    fn sample(&self, server: &str) -> Value {
        let spec = json!({ "weight": 2, "method": "nat" });
        match (self.method.as_str(), self.path.as_str()) {
            ("post", "/v1/services") => json!({ "protocol": "udp", "address": "192.0.2.77:53", "scheduler": "rr" }),
            ("put" | "patch", "/v1/services/{service}") => {
                json!({ "scheduler": "rr", "persistence": { "timeout": "5m" } })
            }
            ("post", "/v1/services/{service}/servers") => json!({ "address": "10.9.9.9:80", "weight": 3 }),
            ("put" | "patch", "/v1/services/{service}/servers/{server}") => spec,
            (_, "/v1/config/apply") => json!({ "name": "f", "text": "version = 1" }),
            (_, "/v1/drain" | "/v1/undrain") => json!({ "service": SERVICE, "server": server }),
            (_, "/v1/ipvsadm") => json!({ "lines": ["-A -u 192.0.2.78:53 -s rr"] }),
            (method, path) => panic!("{method} {path} has a body that this test does not know"),
        }
    }
}

fn generation(socket: &str) -> u64 {
    ask(socket, "GET", "/v1/config", &Value::Null).body["generation"].as_u64().unwrap()
}

/// All that the description has is asked for as it says, and answered as it says.
#[test]
fn everything_that_is_described_answers_as_described() {
    let lab = TestLab::up(&["--servers", "2"]);
    let socket = socket(lab.name());
    let api = Api::of(&socket);
    assert_eq!(lab.json(&["openapi"]), api.all);
    let server = lab.json(&["server", "list", "--json"])[0]["address"].as_str().unwrap().to_owned();
    let (mut asked, mut last) = (0, None);
    for operation in api.operations() {
        // Streams, and text: tests of their own.
        if ["/v1/events", "/v1/trace", "/metrics"].contains(&operation.path.as_str()) {
            continue;
        }
        if operation.path == "/v1/detach" {
            last = Some(operation);
            continue;
        }
        let mut body = operation.body().map_or(Value::Null, |_| operation.sample(&server));
        let guarded = operation.parameters("query").iter().any(|(name, _)| name == "dry_run");
        let dry = if guarded { "?dry_run=true".to_owned() } else { operation.needed().unwrap_or_default() };
        if operation.path == "/v1/config/rollback" {
            // There has to be something to go back to.
            assert_eq!(
                ask(
                    &socket,
                    "PATCH",
                    &format!("/v1/services/{SERVICE}"),
                    &json!({ "vip": "operator", "scheduler": "lc" })
                )
                .status,
                200
            );
        }
        let before = generation(&socket);
        let answer =
            ask(&socket, &operation.method.to_uppercase(), &format!("{}{dry}", operation.place(&server)), &body);
        assert!(answer.status < 300, "{} {}: {answer:?}", operation.method, operation.path);
        api.check(&operation, &answer);
        if guarded {
            assert_eq!(generation(&socket), before, "{} {}", operation.method, operation.path);
            let stale = format!("{}?generation={}", operation.place(&server), before + 1000);
            let answer = ask(&socket, &operation.method.to_uppercase(), &stale, &body);
            assert_eq!((answer.status, &answer.body["stale"]), (409, &json!(true)), "{answer:?}");
            api.check(&operation, &answer);
        }
        // Whoever is not there is named.
        if operation.path.contains("{service}") {
            if let Some(body) = body.as_object_mut() {
                body.remove("address");
            }
            let place = operation.path.replace("{service}", "tcp:192.0.2.99:80").replace("{server}", &server);
            let answer = ask(&socket, &operation.method.to_uppercase(), &format!("{place}{dry}"), &body);
            let created = operation.method == "put" && operation.path == "/v1/services/{service}";
            assert_eq!(answer.status, if created { 200 } else { 404 }, "{} {place}: {answer:?}", operation.method);
            api.check(&operation, &answer);
        }
        asked += 1;
    }
    assert!(asked >= 25, "{asked}");
    let detach = last.expect("/v1/detach is described");
    let answer = ask(&socket, "POST", &detach.path, &Value::Null);
    assert_eq!(answer.status, 200);
    api.check(&detach, &answer);
}

/// Values of every other type than a schema allows.
fn wrong_values(api: &Api, schema: &Value) -> Vec<Value> {
    let all = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1.5),
        json!("\u{0}"),
        json!([]),
        json!([[1]]),
        json!({}),
        json!({ "x": 1 }),
    ];
    let all = all.into_iter().chain([json!(u64::MAX), json!("none of these"), json!("")]);
    let valid = api.validator(schema);
    all.filter(|value| !valid.is_valid(value)).collect()
}

/// Who is refused before his body has come may send the rest, and reads the answer to its end: no reset takes it from him.
#[test]
fn an_answer_outlasts_the_rest_of_its_request() {
    let lab = TestLab::up(&["--servers", "1"]);
    let mut stream = UnixStream::connect(socket(lab.name())).unwrap();
    let body = vec![b' '; 1 << 16];
    let head = format!(
        "POST /v1/drain?generation=x HTTP/1.1\r\nhost: dirigent\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        2 * body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 400");
    stream.write_all(&body).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("correct what stands behind the ?"), "{rest}");
}

/// What is no request is refused in every way that there is to get one wrong, with a word on what helps; and nothing is
/// changed by it.
#[test]
fn what_is_no_request_is_refused_and_changes_nothing() {
    let lab = TestLab::up(&["--servers", "2"]);
    let socket = socket(lab.name());
    let api = Api::of(&socket);
    let server = lab.json(&["server", "list", "--json"])[0]["address"].as_str().unwrap().to_owned();
    let begun = generation(&socket);
    let mut refused = 0;
    let mut refuse = |operation: &Operation, place: &str, content_type: &str, body: &[u8], statuses: &[u16]| {
        let answer = send(&socket, &operation.method.to_uppercase(), place, content_type, body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        assert!(statuses.contains(&answer.status), "{} {place} {shown}: {answer:?}", operation.method);
        api.check(operation, &answer);
        refused += 1;
    };
    let json = "application/json";
    for operation in api.operations().iter().filter(|o| o.path != "/v1/detach") {
        let place = operation.place(&server);
        let sample = operation.body().map(|_| operation.sample(&server));
        let whole = sample.as_ref().map_or_else(Vec::new, |body| body.to_string().into_bytes());
        for (name, schema) in operation.parameters("query") {
            if schema["type"] == "string" {
                continue;
            }
            for value in ["perhaps", "", "-1", "1e3", "99999999999999999999", "%00", "%ff"] {
                if value.is_empty() && schema["type"] == "boolean" {
                    continue;
                }
                refuse(operation, &format!("{place}?{name}={value}"), json, &whole, &[400]);
            }
            let misspelt = format!("{}x", name);
            refuse(operation, &format!("{place}?{misspelt}=true"), json, &whole, &[400]);
        }
        refuse(operation, &format!("{place}?nonsense=1"), json, &whole, &[400]);
        for name in ["%00", "nothing", "tcp:", "tcp:192.0.2.10", "fwmark:0", "tcp:%5B::1%5D:99999", "%ff%fe"] {
            if operation.path.contains("{service}") && operation.method != "get" {
                let place = operation.path.replace("{service}", name).replace("{server}", &server);
                refuse(operation, &format!("{place}?dry_run=true"), json, &whole, &[400, 404, 422]);
            }
        }
        let (Some(schema), Some(sample)) = (operation.body(), sample) else { continue };
        // No JSON, or none of an object's.
        let deep = "[".repeat(10_000);
        for body in [&b""[..], b"{", b"{\"a\"", b"nonsense", b"\xff\xfe", b"{}{}", b"{\"a\":1,}", deep.as_bytes()] {
            refuse(operation, &place, json, body, &[400, 422]);
        }
        for body in ["null", "true", "7", "\"text\"", "[[]]"] {
            refuse(operation, &place, json, body.as_bytes(), &[422]);
        }
        for content_type in ["text/plain", "application/x-www-form-urlencoded", ""] {
            refuse(operation, &place, content_type, &whole, &[415]);
        }
        // Every key with everything that it must not be.
        let schema = api.resolved(schema);
        let properties = schema["properties"].as_object().cloned().unwrap_or_default();
        for (key, of) in &properties {
            for wrong in wrong_values(&api, of) {
                let mut body = sample.clone();
                body[key] = wrong.clone();
                refuse(operation, &place, json, body.to_string().as_bytes(), &[422]);
            }
        }
        for key in schema["required"].as_array().cloned().unwrap_or_default() {
            let mut body = sample.as_object().unwrap().clone();
            body.remove(key.as_str().unwrap());
            refuse(operation, &place, json, Value::Object(body).to_string().as_bytes(), &[422]);
        }
        if schema["additionalProperties"] == false {
            for key in ["nonsense", "wieght", "shceduler", "\u{7f}", ""] {
                let mut body = sample.clone();
                body[key] = json!(1);
                refuse(operation, &place, json, body.to_string().as_bytes(), &[422]);
            }
        }
    }
    // Values of the right type that make no sense.
    let service = |body: Value| ("patch", "/v1/services/{service}", body);
    let of_server = |body: Value| ("patch", "/v1/services/{service}/servers/{server}", body);
    let senseless = [
        service(json!({ "scheduler": "fastest" })),
        service(json!({ "scheduler_flags": ["sh-port"] })),
        service(json!({ "one_packet": true })),
        service(json!({ "slow_start": "soon" })),
        service(json!({ "slow_start": "-5s" })),
        service(json!({ "vip": "somebody" })),
        service(json!({ "persistence": { "timeout": "0s" } })),
        service(json!({ "persistence": { "timeout": "5m", "mask": "256.0.0.0" } })),
        service(json!({ "persistence": { "mask": "/99" } })),
        service(json!({ "protocol": "udp" })),
        service(json!({ "address": "192.0.2.11:80" })),
        service(json!({ "fwmark": 7 })),
        service(json!({ "server": [{ "address": "10.0.0.2" }, { "address": "10.0.0.2" }] })),
        service(json!({ "server": [{ "weight": 1 }] })),
        service(json!({ "server": [{ "address": "fd00::2" }] })),
        of_server(json!({ "weight": 2_147_483_648_u64 })),
        of_server(json!({ "method": "magic" })),
        of_server(json!({ "upper": 5, "lower": 9 })),
        of_server(json!({ "method": "tun", "tunnel": "gue" })),
        of_server(json!({ "tunnel": "ipip" })),
        of_server(json!({ "server_id": "0a000002" })),
        of_server(json!({ "address": "10.0.0.99:80" })),
        ("post", "/v1/services", json!({ "protocol": "tcp" })),
        ("post", "/v1/services", json!({ "protocol": "tcp", "address": "192.0.2.10" })),
        ("post", "/v1/services", json!({ "protocol": "tcp", "address": "0.0.0.0:80" })),
        ("post", "/v1/services", json!({ "protocol": "tcp", "address": "192.0.2.10:0" })),
        ("post", "/v1/services", json!({ "fwmark": 0 })),
        ("post", "/v1/services", json!({})),
        ("post", "/v1/services/{service}/servers", json!({})),
        ("post", "/v1/services/{service}/servers", json!({ "address": "255.255.255.255:80" })),
        ("post", "/v1/services/{service}/servers", json!({ "address": "10.0.0.2:80:80" })),
    ];
    for (method, path, body) in senseless {
        let operation =
            api.operations().into_iter().find(|o| (o.method.as_str(), o.path.as_str()) == (method, path)).unwrap();
        let place = operation.place(&server);
        refuse(&operation, &place, json, body.to_string().as_bytes(), &[422]);
    }
    // What is there already.
    let there = api
        .operations()
        .into_iter()
        .find(|o| (o.method.as_str(), o.path.as_str()) == ("post", "/v1/services"))
        .unwrap();
    refuse(&there, &there.path, json, br#"{"protocol": "tcp", "address": "192.0.2.10:80"}"#, &[409]);
    assert!(refused > 300, "{refused}");
    println!("{refused} requests refused");
    // Paths and methods that there are not.
    for operation in api.operations() {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            if api.all["paths"][&operation.path][method.to_lowercase()].is_null() {
                let answer = ask(&socket, method, &operation.place(&server), &Value::Null);
                assert_eq!(answer.status, 405, "{method} {}", operation.path);
                assert_ne!(answer.body["problems"][0]["remedy"], "");
            }
        }
    }
    assert_eq!(generation(&socket), begun, "{}", lab.log());
    assert_eq!(lab.curl("http://192.0.2.10/").trim().len(), "server1".len());
}

/// One service and one server at a time, by the API and by the command line, under names as people write them.
#[test]
fn services_and_servers_come_change_and_go() {
    let lab = TestLab::up(&["--servers", "2"]);
    let socket = socket(lab.name());
    let listed = lab.json(&["server", "list", "--json"]);
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|s| s["address"].as_str().unwrap()).collect();
    let at = |server: &str| format!("/v1/services/tcp%3A192.0.2.10%3A80/servers/{server}");

    let begun = generation(&socket);
    assert_eq!(ask(&socket, "PATCH", &at(names[0]), &json!({ "weight": 0 })).status, 200);
    assert_eq!(ask(&socket, "GET", &at(names[0]), &Value::Null).body["weight"], 0);
    assert_eq!(ask(&socket, "GET", &at(names[0]), &Value::Null).body["state"], "quiesced");
    let answers: Vec<String> = (0..6).map(|_| lab.curl("http://192.0.2.10/")).collect();
    assert!(answers.iter().all(|a| a == &answers[0]), "{answers:?}");
    assert_eq!(ask(&socket, "DELETE", &at(names[0]), &Value::Null).status, 200);
    assert_eq!(ask(&socket, "DELETE", &at(names[0]), &Value::Null).status, 404);
    let made =
        ask(&socket, "POST", "/v1/services/tcp:192.0.2.10:80/servers", &json!({ "address": names[0], "weight": 5 }));
    assert_eq!((made.status, &made.body["generation"]), (201, &json!(begun + 3)));
    let spec = ask(&socket, "GET", "/v1/services/tcp:192.0.2.10:80/spec", &Value::Null).body;
    assert_eq!(spec["server"].as_array().unwrap().len(), 2);
    // What it is configured with is what it can be configured with.
    let same = ask(&socket, "PUT", "/v1/services/tcp:192.0.2.10:80", &spec);
    assert_eq!((same.status, &same.body["operations"]), (200, &json!([])));

    let (said, _) = lab.dirigent(&["service", "add", "udp:192.0.2.77:53", "--scheduler", "rr", "--one-packet"]);
    assert!(said.contains("add service udp 192.0.2.77:53"), "{said}");
    let (code, said) = lab.dirigent_fails(&["service", "add", "udp:192.0.2.77:53"]);
    assert!(code == 8 && said.contains("is there already"), "{code} {said}");
    lab.dirigent(&["server", "add", "192.0.2.77:53", "10.9.9.9", "--weight", "3"]);
    lab.dirigent(&["server", "edit", "192.0.2.77:53", "10.9.9.9", "--weight", "4", "--upper", "10"]);
    let service = ask(&socket, "GET", "/v1/services/udp:192.0.2.77:53", &Value::Null).body;
    assert_eq!((&service["flags"], &service["servers"][0]["weight"]), (&json!(["one-packet"]), &json!(4)));
    assert_eq!(service["servers"][0]["upper"], 10);
    lab.dirigent(&["service", "edit", "udp:192.0.2.77:53", "--one-packet=false", "--persistence", "5m"]);
    let edited = ask(&socket, "GET", "/v1/services/udp:192.0.2.77:53/spec", &Value::Null).body;
    assert_eq!((&edited["one_packet"], &edited["persistence"]["timeout"]), (&Value::Null, &json!("300s")));
    lab.dirigent(&["service", "edit", "udp:192.0.2.77:53", "--persistence", "none"]);
    let edited = ask(&socket, "GET", "/v1/services/udp:192.0.2.77:53/spec", &Value::Null).body;
    assert_eq!(edited["persistence"], Value::Null);
    let (code, said) = lab.dirigent_fails(&["server", "edit", "192.0.2.77:53", "10.9.9.9", "--weight", "3000000000"]);
    assert!(code == 3 && said.contains("weight: weight is 3000000000; use a whole number"), "{code} {said}");
    let (code, said) = lab.dirigent_fails(&["server", "edit", "192.0.2.77:53", "10.9.9.9"]);
    assert!(code == 1 && said.contains("nothing is to be changed"), "{code} {said}");
    let (code, _) = lab.dirigent_fails(&["server", "remove", "192.0.2.77:53", "10.9.9.8"]);
    assert_eq!(code, 7);
    lab.dirigent(&["server", "remove", "192.0.2.77:53", "10.9.9.9"]);
    let before = generation(&socket);
    let (said, _) = lab.dirigent(&["service", "remove", "udp:192.0.2.77:53", "--dry-run"]);
    assert!(said.contains("remove service udp 192.0.2.77:53") && generation(&socket) == before, "{said}");
    lab.dirigent(&["service", "remove", "udp:192.0.2.77:53"]);
    let (code, _) = lab.dirigent_fails(&["service", "remove", "udp:192.0.2.77:53"]);
    assert_eq!(code, 7);
    // Each was one change, which can be taken back.
    lab.dirigent(&["config", "rollback", "--yes"]);
    assert_eq!(ask(&socket, "GET", "/v1/services/udp:192.0.2.77:53", &Value::Null).status, 200);
}

/// Lines of a command that goes on, as they come.
fn lines(mut child: std::process::Child) -> (std::process::Child, std::sync::mpsc::Receiver<String>) {
    let (to, lines) = std::sync::mpsc::channel();
    let out = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| to.send(line)));
    (child, lines)
}

fn until(lines: &std::sync::mpsc::Receiver<String>, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut seen = Vec::new();
    loop {
        let line = lines.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|e| panic!("{e}: {seen:#?}"));
        let event: Value = serde_json::from_str(&line).unwrap();
        if wanted(&event) {
            return event;
        }
        seen.push(line);
    }
}

/// Configuration applied, server down and up, drops above a threshold, the daemon's end: told as they happen.
#[test]
fn events_are_told_as_they_happen() {
    let lab = TestLab::up(&["--servers", "1"]);
    let listen = |drops: &str| {
        let child = Command::new(env!("CARGO_BIN_EXE_dirigent"))
            .args(["--instance", lab.name(), "events", "--json", "--drops", drops])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        lines(child)
    };
    let ((mut all, heard), (mut few, told)) = (listen("0"), listen("1000000"));
    // Both listen once they hear of something.
    let begun = Instant::now();
    while heard.try_recv().is_err() || told.try_recv().is_err() {
        lab.dirigent(&["service", "add", "udp:192.0.2.77:53"]);
        lab.dirigent(&["service", "remove", "udp:192.0.2.77:53"]);
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    lab.dirigent(&["service", "add", "udp:192.0.2.77:53", "--scheduler", "rr"]);
    let applied =
        until(&heard, |e| e["event"] == "applied" && e["what"].as_str().unwrap().starts_with("add service udp"));
    assert!(applied["by"].as_str().unwrap().starts_with("root, process"), "{applied}");
    assert_eq!(applied["operations"], 1);

    // Nobody serves 192.0.2.77: each packet is dropped, or answered; a service without servers drops.
    let down = lab.json(&["server", "list", "--json"])[0]["address"].as_str().unwrap().to_owned();
    let ip = down.rsplit_once(':').unwrap().0.to_owned();
    lab.sh("director", &format!("ip route replace unreachable {ip}/32"));
    let event = until(&heard, |e| e["event"] == "server" && e["up"] == false);
    assert_eq!((&event["address"], &event["why"]), (&json!(ip), &json!("no route")));
    lab.sh("director", &format!("ip route del unreachable {ip}/32"));
    assert_eq!(until(&heard, |e| e["event"] == "server" && e["up"] == true)["address"], json!(ip));

    lab.dirigent(&["server", "edit", "tcp:192.0.2.10:80", &down, "--weight", "0"]);
    let begun = Instant::now();
    let drops = loop {
        lab.sh("client", "for i in 1 2 3; do curl -s --max-time 0.2 http://192.0.2.10/ || true; done");
        let found =
            heard.try_iter().map(|line| serde_json::from_str::<Value>(&line).unwrap()).find(|e| e["event"] == "drops");
        if let Some(drops) = found {
            break drops;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", lab.dirigent(&["stats", "--drops"]).0);
    };
    assert!(drops["per_second"].as_u64().unwrap() >= 1 && drops["text"] != "", "{drops}");
    assert!(lab.count(drops["reason"].as_str().unwrap()) > 0, "{drops}");

    lab.signal_daemon("-TERM");
    until(&heard, |e| e["event"] == "role" && e["role"] == "ended");
    assert!(all.wait().unwrap().success() && few.wait().unwrap().success());
    let few: Vec<String> = told.iter().collect();
    assert!(few.iter().any(|line| line.contains("\"server\"")), "{few:#?}");
    assert!(!few.iter().any(|line| line.contains("\"drops\"")), "{few:#?}");
}

/// `--watch` shows the same again, by the line in JSON, and outlives a daemon's restart.
#[test]
fn lists_are_watched() {
    let lab = TestLab::up(&["--servers", "1"]);
    let child = Command::new(env!("CARGO_BIN_EXE_dirigent"))
        .args(["--instance", lab.name(), "server", "list", "--json", "--watch=100ms"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut child, heard) = lines(child);
    let weight = |weight: u64| until(&heard, |servers| servers[0]["weight"] == weight);
    weight(1);
    let server = lab.json(&["server", "list", "--json"])[0]["address"].as_str().unwrap().to_owned();
    lab.dirigent(&["server", "edit", "tcp:192.0.2.10:80", &server, "--weight", "7"]);
    weight(7);
    lab.kill_daemon();
    lab.start_daemon();
    lab.dirigent(&["server", "edit", "tcp:192.0.2.10:80", &server, "--weight", "8"]);
    weight(8);
    child.kill().unwrap();
    child.wait().unwrap();
    let (code, said) = lab.dirigent_fails(&["service", "list", "--watch=1ms"]);
    assert!(code == 2 && said.contains("100ms"), "{said}");
}

/// A process that ends with the test.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The daemon's open descriptors.
fn descriptors(pid: &str) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Whatever clients do, operators are answered, and nothing of it stays.
#[test]
fn clients_that_stall_flood_or_vanish_keep_nobody_out() {
    let lab = TestLab::up(&["--servers", "1"]);
    let text = lab.config();
    lab.write_config(&text.replacen("[director]\n", "[director]\ngroup = \"nogroup\"\n", 1));
    lab.signal_daemon("-TERM");
    lab.start_daemon();
    let socket = socket(lab.name());
    let pid = lab.json(&["status", "--json"])["daemon"]["pid"].to_string();
    let begun = generation(&socket);
    let before = descriptors(&pid);
    let answered = |what: &str| {
        let asked = Instant::now();
        lab.dirigent(&["status", "--json"]);
        assert!(asked.elapsed() < Duration::from_secs(5), "{what}: {:?}", asked.elapsed());
    };

    // A user of the group opens all that he gets, says half a request on each, and holds them.
    let script = "
import socket, sys, time
held = []
failed = 0
for i in range(600):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(5)
    try:
        s.connect(sys.argv[1])
        s.sendall(b'GET /v1/status HTTP/1.1\\r\\nhost: x\\r\\n' if i % 2 else b'')
    except BrokenPipeError:
        pass
    except OSError:
        failed += 1
    held.append(s)
print('held' if failed == 0 else 'fail', flush=True)
time.sleep(60)
";
    let mut flood = Ended(
        Command::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "/usr/bin/python3", "-c", script, &socket])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut said = [0; 4];
    let mut out = flood.0.stdout.take().unwrap();
    out.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"held");
    let held_since = Instant::now();
    answered("600 connections of one user");
    let most = descriptors(&pid);
    assert!(most < before + 100, "{before} descriptors became {most}");
    // He is told so, and can read again when the daemon has let the stalled ones go.
    let refused = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "curl", "-s", "--max-time", "5"])
        .args(["-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", &socket, "http://x/v1/status"])
        .output()
        .unwrap();
    let code = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(["503", "000"].contains(&code.as_str()), "{code} after {:?}: {before}, then {most}", held_since.elapsed());

    // Bodies that never come, whole and half; answers that nobody reads; askers that leave.
    let mut held = Vec::new();
    for i in 0..20 {
        let mut stalled = UnixStream::connect(&socket).unwrap();
        let body = if i % 2 == 0 { "" } else { "{\"name\":" };
        let head = "POST /v1/config/apply HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n";
        stalled.write_all(format!("{head}{body}").as_bytes()).unwrap();
        held.push(stalled);
        let mut deaf = UnixStream::connect(&socket).unwrap();
        deaf.set_nonblocking(true).unwrap();
        // As many requests as fit, and no answer read.
        let ask = "GET /v1/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
        while deaf.write(ask.as_bytes()).is_ok() {}
        held.push(deaf);
        let mut gone = UnixStream::connect(&socket).unwrap();
        let body = json!({ "protocol": "udp", "address": format!("192.0.2.77:{}", 1000 + i) }).to_string();
        let length = body.len();
        let head = "POST /v1/services HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length:";
        gone.write_all(format!("{head} {length}\r\n\r\n{body}").as_bytes()).unwrap();
    }
    // Bytes that are no HTTP.
    let mut word = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..500 {
        let bytes: Vec<u8> = (0..200)
            .map(|_| {
                word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (word >> 33) as u8
            })
            .collect();
        let mut noise = UnixStream::connect(&socket).unwrap();
        let _ = noise.write_all(&bytes);
    }
    answered("40 stalled operators, and noise");
    // What was asked for before its asker left was done as a whole, each in one generation, or was not heard any more.
    let waiting = Instant::now();
    loop {
        let services = lab.json(&["service", "list", "--json"]);
        let made = services
            .as_array()
            .unwrap()
            .iter()
            .filter(|s| s["address"].as_str().unwrap().starts_with("192.0.2.77:"))
            .count() as u64;
        let generation = generation(&socket);
        if made > 0 && generation == begun + made {
            break;
        }
        assert!(waiting.elapsed() < Duration::from_secs(20), "{made} made, {generation} after {begun}");
        std::thread::sleep(Duration::from_millis(100));
    }
    // Stalled ones are let go of by themselves.
    let waiting = Instant::now();
    while descriptors(&pid) > before + 5 {
        assert!(waiting.elapsed() < Duration::from_secs(40), "{before} descriptors, now {}", descriptors(&pid));
        std::thread::sleep(Duration::from_millis(200));
    }
    drop(held);
    drop(flood);
    answered("after all that");
    assert_eq!(lab.curl("http://192.0.2.10/"), "server1\n".trim());
    let log = lab.log();
    assert!(log.len() < 1 << 20, "{} bytes of log", log.len());
}

/// Members of `operators` change a director without being root; members of `group` alone do not.
#[test]
fn operators_change_and_the_group_reads() {
    let lab = TestLab::up(&["--servers", "1"]);
    let text = lab.config();
    lab.write_config(&text.replacen("[director]\n", "[director]\noperators = \"nogroup\"\n", 1));
    lab.signal_daemon("-TERM");
    lab.start_daemon();
    let socket = socket(lab.name());
    let status = |gid: &str, method: &str, path: &str| {
        let output = Command::new("setpriv")
            .args([
                "--reuid",
                "65533",
                "--regid",
                gid,
                "--clear-groups",
                "curl",
                "-s",
                "--max-time",
                "10",
                "-X",
                method,
            ])
            .args(["-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", &socket, &format!("http://x{path}")])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(status("65534", "GET", "/v1/status"), "200");
    assert_eq!(status("65534", "POST", "/v1/reload"), "200");
    // Not even the socket.
    assert_eq!(status("65533", "GET", "/v1/status"), "000");
    let history = lab.json(&["config", "history", "--json"]);
    assert!(history.is_array());

    // With a group of its own the socket is that group's, and operators must be in both.
    lab.write_config(&text.replacen("[director]\n", "[director]\ngroup = \"nogroup\"\noperators = \"daemon\"\n", 1));
    lab.signal_daemon("-TERM");
    lab.start_daemon();
    assert_eq!(status("65534", "GET", "/v1/status"), "200");
    assert_eq!(status("65534", "POST", "/v1/reload"), "403");
    assert_eq!(status("65534", "DELETE", "/v1/services/tcp:192.0.2.10:80"), "403");
}

/// Certificates as a company's own authority makes them.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "the company");
        let key = rcgen::KeyPair::generate().unwrap();
        Self { certificate: params.self_signed(&key).unwrap(), issuer: rcgen::Issuer::new(params, key) }
    }
    /// Writes NAME.pem and NAME.key.
    fn issue(&self, lab: &TestLab, name: &str, names: &[&str], common: &str) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, common);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(lab.file(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(lab.file(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// Over TCP both sides prove who they are; some certificates may change, others read, and all others nothing.
#[test]
fn the_api_is_there_over_mutual_tls() {
    let lab = TestLab::up(&["--servers", "1"]);
    let (ours, theirs) = (Authority::new(), Authority::new());
    let address = lab.sh("director", "ip -4 -o address show dev r0 | awk '{print $4}' | cut -d/ -f1");
    ours.issue(&lab, "director", &[&address], "director");
    ours.issue(&lab, "operator", &["ops.example"], "somebody");
    ours.issue(&lab, "reader", &["graphs.example"], "ops.example");
    theirs.issue(&lab, "stranger", &["ops.example"], "ops.example");
    std::fs::write(lab.file("ca.pem"), ours.certificate.pem()).unwrap();
    let file = |name: &str| lab.file(name).display().to_string();
    let with = |listen: &str, certificate: &str| {
        format!(
            "[director.api]\nlisten = {listen:?}\ncertificate = {:?}\nkey = {:?}\nclients = {:?}\n\
             operator_names = [\"ops.example\"]\n\n[director.page]\n\n[[service]]",
            file(certificate),
            file("director.key"),
            file("ca.pem")
        )
    };
    let text = lab.config();
    let listen = format!("{address}:9443");
    lab.signal_daemon("-TERM");

    // What cannot be is said before anything is attached or taken over.
    let missing = text.replacen("[[service]]", &with(&listen, "nothing.pem"), 1);
    lab.write_config(&missing);
    let config = file("dirigent.toml");
    let (code, said) = lab.dirigent_fails(&["run", "--config", &config]);
    assert!(code == 1 && said.contains("[director.api] certificate") && said.contains("nothing.pem"), "{code} {said}");

    lab.write_config(&text.replacen("[[service]]", &with(&listen, "director.pem"), 1));
    lab.start_daemon();
    let ask = |who: &str, method: &str, path: &str| {
        let identity = if who.is_empty() {
            String::new()
        } else {
            format!("--cert {} --key {}", file(&format!("{who}.pem")), file(&format!("{who}.key")))
        };
        let ca = file("ca.pem");
        let script = format!(
            "curl -s --max-time 10 -X {method} --cacert {ca} {identity} -w '\\n%{{http_code}}' https://{listen}{path} || true"
        );
        let all = lab.sh("server1", &script);
        let (body, code) = all.rsplit_once('\n').unwrap_or(("", all.as_str()));
        (code.trim().to_owned(), serde_json::from_str::<Value>(body).unwrap_or(Value::Null))
    };
    let (code, status) = ask("reader", "GET", "/v1/status");
    assert_eq!((code.as_str(), &status["instance"]), ("200", &json!(lab.name())), "{status}\n{}", lab.log());
    assert_eq!(ask("reader", "GET", "/metrics").0, "200");
    // The common name of one that has other names is nobody's.
    let (code, refusal) = ask("reader", "POST", "/v1/reload");
    assert_eq!((code.as_str(), &refusal["denied"]), ("403", &json!(true)), "{refusal}");
    let (code, _) = ask("operator", "DELETE", "/v1/services/udp:192.0.2.10:7");
    assert_eq!(code, "200");
    let by = lab.json(&["config", "history", "--json"])[0]["by"].as_str().unwrap().to_owned();
    assert!(by.starts_with("ops.example, from "), "{by}");
    for who in ["stranger", ""] {
        for path in ["/v1/status", "/"] {
            assert_eq!(ask(who, "GET", path).0, "000", "{who:?} is let in");
        }
    }
    // Browsers have the page here, and no other site has an operator's browser do anything.
    assert_eq!(ask("reader", "GET", "/").0, "200");
    let from = |origin: &str| ask("operator", "POST", &format!("/v1/reload -H 'origin: {origin}'"));
    let (code, refusal) = from("https://evil.example");
    assert_eq!((code.as_str(), &refusal["denied"]), ("403", &json!(true)), "{refusal}");
    let (code, refusal) = from(&format!("https://{listen}"));
    assert!(
        code == "403" && refusal["problems"][0]["remedy"].as_str().unwrap().contains("operate = true"),
        "{refusal}"
    );
    assert_eq!(ask("operator", "POST", "/v1/reload").0, "200");
    // Whoever says nothing, or no TLS, keeps nobody out.
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(lab.start("server1", &["socat", "-", &format!("TCP:{listen}")]));
    }
    assert!(lab.dirigent(&["status"]).0.contains("forwarding"));
    for child in &mut held {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // A new certificate holds for the next connection, a broken one for none.
    std::fs::write(lab.file("director.pem"), "nonsense").unwrap();
    let waiting = Instant::now();
    while ask("reader", "GET", "/v1/status").0 != "200" {
        assert!(waiting.elapsed() < Duration::from_secs(20), "{}", lab.log());
    }
    let renewed = Authority::new();
    renewed.issue(&lab, "director", &[&address], "director");
    assert_eq!(ask("reader", "GET", "/v1/status").0, "000");
    let renewed = renewed.certificate.pem();
    std::fs::write(lab.file("ca.pem"), format!("{renewed}\n{}", ours.certificate.pem())).unwrap();
    assert_eq!(ask("reader", "GET", "/v1/status").0, "200", "{}", lab.log());
}
