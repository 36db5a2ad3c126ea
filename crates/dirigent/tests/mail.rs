//! Mails about changes, to an SMTP server of the test's own. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod link;

use dirigent_net::netns::Namespace;
use link::{Link, PATIENCE};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::time::Instant;

/// One conversation of RFC 5321; the mail's text.
fn converse(mut stream: TcpStream) -> Option<String> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    stream.write_all(b"220 mail.example\r\n").ok()?;
    let mut said = String::new();
    while let Some(Ok(line)) = lines.next() {
        let answer = match line.split([' ', ':']).next()? {
            "EHLO" | "MAIL" | "RCPT" => "250 ok\r\n",
            "DATA" => {
                stream.write_all(b"354 go on\r\n").ok()?;
                for line in lines.by_ref().map_while(|line| line.ok().filter(|line| line != ".")) {
                    said += &format!("{line}\n");
                }
                "250 taken\r\n"
            }
            "QUIT" => "221 bye\r\n",
            other => panic!("{other}"),
        };
        stream.write_all(answer.as_bytes()).ok()?;
    }
    Some(said)
}

/// An SMTP server on a host that hangs up on its first client.
fn server(link: &Link, host: &str) -> mpsc::Receiver<String> {
    let namespace = Namespace::open(&link.namespace(host)).unwrap();
    let listener = namespace.run(|| TcpListener::bind("0.0.0.0:25").unwrap()).unwrap();
    let (mails, read) = mpsc::channel();
    std::thread::spawn(move || {
        drop(listener.accept());
        for stream in listener.incoming().map_while(Result::ok) {
            if converse(stream).is_some_and(|mail| mails.send(mail).is_err()) {
                return;
            }
        }
    });
    read
}

/// A mail that does not get through is tried again; those of what nobody wants to hear of are not sent.
#[test]
fn changes_are_mailed() {
    let link = Link::up();
    let mails = server(&link, "c");
    let mut listen = Command::new("socat");
    listen.args(["TCP4-LISTEN:8080,fork,reuseaddr", "EXEC:cat"]);
    link.start_as("server", "d", &mut listen);
    link.director(
        "a",
        "[director]\nconnections = 4096\n\
         [mail]\nserver = \"10.9.0.9\"\nto = [\"ops@example.com\"]\nhost = \"lb1\"\nrouters = true\n\
         [[router]]\nname = \"web\"\ninterface = \"eth0\"\nvrid = 51\ninterval = \"100ms\"\naddresses = [\"10.9.0.100/24\"]\n\
         [[router]]\nname = \"quiet\"\ninterface = \"eth0\"\nvrid = 52\ninterval = \"100ms\"\naddresses = [\"10.9.0.101/24\"]\nmail = false\n\
         [[service]]\nprotocol = \"tcp\"\naddress = \"10.9.0.100:80\"\n\
         [[service.server]]\naddress = \"10.9.0.3:8080\"\ncheck = [{ type = \"tcp\", interval = \"200ms\", timeout = \"1s\" }]\n",
    );
    let next = |word: &str| {
        let begun = Instant::now();
        let mut seen = String::new();
        loop {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let mail =
                mails.recv_timeout(left).unwrap_or_else(|_| panic!("no mail says {word}: {seen}{}", link.logs()));
            assert!(!mail.contains("quiet"), "{mail}");
            if mail.contains(word) {
                return mail;
            }
            seen += &mail;
        }
    };
    let mail = next("VRRP Instance web - Entering MASTER state");
    for head in ["From: dirigent@lb1\n", "To: ops@example.com\n", "Subject: [lb1] "] {
        assert!(mail.contains(head), "{head}: {mail}");
    }
    link.until("the server is up", || {
        link.dirigent("a", &["server", "list", "--json"]).is_some_and(|list| list.contains("\"state\": \"up\""))
    });
    link.signal("server", "-9");
    next("Realserver 10.9.0.3:8080 of virtual server tcp 10.9.0.100:80 - DOWN");
    link.start_as("server again", "d", &mut listen);
    next("Realserver 10.9.0.3:8080 of virtual server tcp 10.9.0.100:80 - UP");
    let status = link.dirigent("a", &["status"]).unwrap();
    assert!(!status.contains("mail"), "{status}");
}
