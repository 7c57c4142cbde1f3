//! The pages of a proxy, as browsers and programs meet them: the link that sets a password and a second factor, and what anybody may
//! ask.

use crate::harness::browser::{Browser, Scripts, impediment};
use crate::harness::cluster::ctl;
use crate::harness::https::{Answer, Https, form as form_of};
use crate::harness::sign_up::{Gate, code, shown_secret, wrong_code};
use crate::harness::{Form, PATIENCE, Stopwatch, figure, in_both_forms, until};
use hyper::{Method, Version};
use serde_json::Value;
use std::net::Ipv4Addr;
use std::time::Duration;

const PASSWORD: &str = "correct horse & battery+staple=é";
/// The one text about a link that cannot be used.
const DEAD: &str = "This link does not work";

in_both_forms! {
    somebody_sets_an_account_up_with_a_link_once,
    a_reset_link_sets_another_password_and_the_older_link_is_dead,
    of_those_who_post_at_once_exactly_one_wins,
    an_address_that_asks_too_often_is_told_to_wait_and_others_are_answered,
    a_link_that_has_expired_is_like_one_that_never_was,
}

fn fields<'a>(password: &'a str, confirm: &'a str, otp: &'a str) -> [(&'static str, &'a str); 3] {
    [("password", password), ("confirm", confirm), ("otp", otp)]
}

#[track_caller]
fn has_its_headers(answer: &Answer) {
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-frame-options"), "DENY");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert!(answer.header("strict-transport-security").starts_with("max-age="));
    let policy = answer.header("content-security-policy");
    for rule in [
        "default-src 'none'",
        "style-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(rule), "{rule} is not in {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
}

/// A refusal on the page of the link, which keeps nothing of what was typed.
#[track_caller]
fn refused_with(answer: &Answer, words: &str) {
    assert_eq!(answer.status, 422, "{}", answer.body);
    has_its_headers(answer);
    let body = answer.body.to_lowercase();
    assert!(
        body.contains("role=\"alert\"") && body.contains(words),
        "{words}: {body}"
    );
    assert!(!body.contains("horse") && !body.contains("value=\"1"), "{body}");
}

#[track_caller]
fn is_dead(answer: &Answer) {
    assert_eq!(answer.status, 404, "{}", answer.body);
    assert!(answer.body.contains(DEAD), "{}", answer.body);
    has_its_headers(answer);
}

fn somebody_sets_an_account_up_with_a_link_once(form: Form) {
    let gate = Gate::start(form);
    let (before, path) = gate.link("add alice --roles=access");
    let ping: Value = serde_json::from_str(&gate.web.get("/webapi/ping").body).expect("JSON");
    assert_eq!(before, format!("https://{}", ping["proxy"].as_str().expect("text")));

    let modern = gate.web.over(Version::HTTP_2);
    let first = gate.web.get(&path);
    let second = modern.get(&path);
    assert_eq!((first.status, first.version), (200, Version::HTTP_11), "{}", first.body);
    assert_eq!(
        (second.status, second.version),
        (200, Version::HTTP_2),
        "{}",
        second.body
    );
    assert_eq!(first.body, second.body, "looking uses nothing up");
    has_its_headers(&first);
    has_its_headers(&second);
    assert_eq!(first.header("content-type"), "text/html; charset=utf-8");
    let secret = shown_secret(&first.body);
    assert!(first.body.contains("<bdi>alice</bdi>") && first.body.contains(&format!("secret={secret}")));

    let right = code(&secret);
    refused_with(
        &gate.web.post(&path, &fields(PASSWORD, "correct horses & co", &right)),
        "not the same",
    );
    refused_with(
        &gate.web.post(&path, &fields("short horse", "short horse", &right)),
        "too short",
    );
    refused_with(
        &gate.web.post(&path, &fields(PASSWORD, PASSWORD, &wrong_code(&secret))),
        "one-time code is not right",
    );
    refused_with(&modern.post(&path, &fields(PASSWORD, PASSWORD, "12345")), "six digits");
    refused_with(&gate.web.post(&path, &[]), "too short");
    let other_site = [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")];
    let right_form = form_of(&fields(PASSWORD, PASSWORD, &code(&secret)));
    let other_site = gate.web.ask(Method::POST, &path, &other_site, right_form);
    assert_eq!(other_site.status, 403, "{}", other_site.body);

    // An app shows it in two groups.
    let code = code(&secret);
    let done = modern.post(
        &path,
        &fields(PASSWORD, PASSWORD, &format!("{} {}", &code[..3], &code[3..])),
    );
    assert_eq!(done.status, 200, "{}", done.body);
    let next = format!(
        "postern login --proxy={} --user=alice",
        ping["proxy"].as_str().expect("text")
    );
    assert!(
        done.body.contains(&next) && done.body.contains("tsh login"),
        "{}",
        done.body
    );
    has_its_headers(&done);

    let again = gate.web.post(&path, &fields(PASSWORD, PASSWORD, &code));
    let unknown = gate.web.get("/web/invite/00000000000000000000000000000000");
    is_dead(&again);
    is_dead(&gate.web.get(&path));
    is_dead(&unknown);
    is_dead(&gate.web.get("/web/reset/..%2f..%2fetc%00%1b"));
    assert_eq!(
        again.body, unknown.body,
        "of a link one learns only that it does not work"
    );
    let event = until("the password is in the audit log", PATIENCE, || {
        let listed = ctl(
            &gate.auth,
            &["audit", "ls", "--event=user.password_change", "--format=json"],
        )
        .ok();
        listed
            .lines()
            .next()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
    });
    assert_eq!(event["user"], "alice");
    assert!(
        event["addr.remote"].as_str().expect("text").starts_with("127.0.0.1"),
        "{event}"
    );
    for node in [Some(&gate.auth), gate.proxy.as_ref()].into_iter().flatten() {
        let log = node.process().log_text();
        assert!(
            !log.contains("horse") && !log.contains(&secret) && !log.contains(&path[12..]),
            "{log}"
        );
    }
}

fn a_reset_link_sets_another_password_and_the_older_link_is_dead(form: Form) {
    let gate = Gate::start(form);
    let (_, invite) = gate.link("add alice --roles=access");
    let older = shown_secret(&gate.web.get(&invite).body);
    let (_, reset) = gate.link("reset alice");
    assert!(reset.starts_with("/web/reset/"));
    is_dead(&gate.web.get(&invite));
    is_dead(&gate.web.post(&invite, &fields(PASSWORD, PASSWORD, &code(&older))));
    let page = gate.web.get(&reset);
    assert!(page.body.contains("Set a new password"), "{}", page.body);
    let secret = shown_secret(&page.body);
    assert_ne!(secret, older);
    let done = gate.web.post(&reset, &fields(PASSWORD, PASSWORD, &code(&secret)));
    assert_eq!(done.status, 200, "{}", done.body);
}

fn of_those_who_post_at_once_exactly_one_wins(form: Form) {
    let gate = Gate::start(form);
    let (_, path) = gate.link("add alice --roles=access");
    let code = code(&shown_secret(&gate.web.get(&path).body));
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..6)
            .map(|number| {
                let (web, path, code) = (&gate.web, &path, &code);
                scope.spawn(move || {
                    let password = format!("a password of racer {number}");
                    web.post(path, &fields(&password, &password, code)).status
                })
            })
            .collect();
        racers
            .into_iter()
            .map(|racer| racer.join().expect("an answer"))
            .collect()
    });
    assert_eq!(
        statuses.iter().filter(|status| **status == 200).count(),
        1,
        "{statuses:?}"
    );
    assert_eq!(
        statuses.iter().filter(|status| **status == 404).count(),
        5,
        "{statuses:?}"
    );
}

fn an_address_that_asks_too_often_is_told_to_wait_and_others_are_answered(form: Form) {
    let gate = Gate::start(form);
    let (_, path) = gate.link("add alice --roles=access");
    let tried: Vec<Answer> = (0..45)
        .map(|_| gate.web.get("/web/invite/00000000000000000000000000000000"))
        .collect();
    let refused: Vec<&Answer> = tried.iter().filter(|answer| answer.status == 429).collect();
    assert!(tried[..40].iter().all(|answer| answer.status == 404), "40 at once");
    assert!(!refused.is_empty());
    assert_eq!(refused[0].header("retry-after"), "3");
    has_its_headers(refused[0]);
    // Whoever guesses keeps nobody else from a link, and what is no secret has a rate of its own.
    assert_eq!(gate.web.from(Ipv4Addr::new(127, 0, 0, 2)).get(&path).status, 200);
    assert_eq!(gate.web.get("/webapi/ping").status, 200);
}

fn a_link_that_has_expired_is_like_one_that_never_was(form: Form) {
    let gate = Gate::start(form);
    let (_, path) = gate.link("add alice --roles=access --ttl=2s");
    let (web, started) = (&gate.web, Stopwatch::start());
    let secret = shown_secret(&web.get(&path).body);
    // Not so often that the rate is what is met.
    let expired = until("the link expires", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(500));
        let seen = web.get(&path);
        (seen.status != 200).then_some(seen)
    });
    assert!(started.elapsed() >= Duration::from_secs(1));
    is_dead(&expired);
    is_dead(&web.post(&path, &fields(PASSWORD, PASSWORD, &code(&secret))));
}

#[test]
fn a_proxy_says_who_it_is_and_answers_what_it_does_not_have() {
    let gate = Gate::start(Form::OneProcess);
    let answer = gate.web.get("/webapi/ping");
    assert_eq!(answer.header("content-type"), "application/json");
    let ping: postern::web::people_api::Ping = serde_json::from_str(&answer.body).expect("a ping");
    assert_eq!(ping.cluster, crate::harness::configuration::CLUSTER_NAME);
    assert_eq!(ping.ca_pins, [crate::harness::cluster::ca_pin(&gate.auth)]);
    assert!(ping.host_ca.starts_with("-----BEGIN CERTIFICATE-----"));

    let front = gate.web.get("/");
    assert_eq!(front.status, 200);
    has_its_headers(&front);
    assert!(
        front.body.contains(&format!("postern login --proxy={}", ping.proxy)),
        "{}",
        front.body
    );
    let style = gate.web.get("/web/style.css");
    assert_eq!(
        (style.status, style.header("content-type")),
        (200, "text/css; charset=utf-8")
    );
    for nothing in ["/favicon.ico", "/web", "/web/invite/", "/webapi/../etc/passwd", "/%00"] {
        let answer = gate.web.get(nothing);
        assert_eq!(answer.status, 404, "{nothing}");
        has_its_headers(&answer);
    }
    assert_eq!(gate.web.post("/", &[]).status, 405);
}

#[test]
fn what_is_too_long_is_refused_and_harms_nobody() {
    let gate = Gate::start(Form::OneProcess);
    let (_, path) = gate.link("add alice --roles=access");
    let long = "a".repeat(70 * 1024);
    for web in [gate.web.clone(), gate.web.over(Version::HTTP_2)] {
        assert_eq!(web.post(&path, &fields(&long, &long, "123456")).status, 413);
        let almost = "a".repeat(129);
        refused_with(&web.post(&path, &fields(&almost, &almost, "123456")), "too long");
    }
    let header = "b".repeat(256 * 1024);
    let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {header}\r\n\r\n");
    let said = gate.web.raw(request.as_bytes());
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 431"), "{said}");
    assert_eq!(gate.web.get(&path).status, 200);
}

#[test]
fn a_client_that_does_not_send_its_request_is_cut() {
    let gate = Gate::start(Form::OneProcess);
    let started = Stopwatch::start();
    for silent in [&b""[..], b"GET / HTTP/1.1\r\nHost:"] {
        gate.web.raw(silent);
    }
    // 15 s each.
    assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
}

#[test]
fn a_link_is_not_used_up_while_auth_is_away() {
    let mut gate = Gate::start(Form::Apart);
    let (_, path) = gate.link("add alice --roles=access");
    let secret = shown_secret(&gate.web.get(&path).body);
    gate.auth.kill9();
    let typed = fields(PASSWORD, PASSWORD, "123456");
    for answer in [gate.web.get(&path), gate.web.post(&path, &typed)] {
        assert_eq!(answer.status, 503, "{}", answer.body);
        answer.header("retry-after");
        has_its_headers(&answer);
    }
    gate.auth.start();
    let web: &Https = &gate.web;
    until("the proxy has found auth again", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(500));
        (web.get(&path).status == 200).then_some(())
    });
    let done = web.post(&path, &fields(PASSWORD, PASSWORD, &code(&secret)));
    assert_eq!(done.status, 200, "{}", done.body);
}

#[test]
fn a_browser_at_auths_own_port_reads_where_to_go() {
    let gate = Gate::start(Form::Apart);
    let auth = gate.web.at(gate.auth.config.auth_port.expect("it listens"));
    let offered: [&[u8]; 2] = [b"h2", b"http/1.1"];
    assert_eq!(auth.settled(&offered).as_deref(), Some(&b"http/1.1"[..]));
    assert_eq!(gate.web.settled(&offered).as_deref(), Some(&b"h2"[..]));
    assert_eq!(gate.web.settled(&[]), None);
    let answer = auth.get("/");
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("auth service's port"), "{}", answer.body);
}

/// As a person does it: what is typed is read from the page, and what is done next too.
fn in_a_browser(what: &str, scripts: Scripts) {
    if let Some(why) = impediment() {
        figure(&format!("NOT RUN: {what}: {why}"));
        return;
    }
    let gate = Gate::start(Form::Apart);
    let (before, path) = gate.link("add alice --roles=access");
    let browser = Browser::start(&gate.web.chain()[0], scripts);
    browser.open(&format!("{before}{path}"));
    assert_eq!(browser.text("h1"), "Set up your account");
    assert!(browser.text("main").contains("For alice in cluster"));
    let (width, height) = browser.size("svg.qr");
    assert!(width > 100.0 && (width - height).abs() < 1.0, "{width} x {height}");
    // The style was taken: the policy allows it, and it says how wide a page is at most.
    assert!(
        (browser.size("main").0 - 576.0).abs() < 1.0,
        "{:?}",
        browser.size("main")
    );
    let secret = browser.text("#secret").replace(' ', "");

    browser.type_into("#password", PASSWORD);
    browser.type_into("#confirm", PASSWORD);
    browser.type_into("#otp", &wrong_code(&secret));
    browser.click("button");
    assert!(browser.text("[role=alert]").contains("one-time code is not right"));
    browser.type_into("#password", PASSWORD);
    browser.type_into("#confirm", PASSWORD);
    browser.type_into("#otp", &code(&secret));
    browser.click("button");
    assert_eq!(browser.text("h1"), "Your password is set");
    assert!(
        browser.text("#next").ends_with("--user=alice"),
        "{}",
        browser.text("#next")
    );
    browser.open(&format!("{before}{path}"));
    assert_eq!(browser.text("h1"), DEAD);
}

#[test]
fn a_person_with_a_browser_sets_an_account_up() {
    in_a_browser("the page of a link in Chromium", Scripts::On);
}

#[test]
fn a_person_whose_browser_runs_no_scripts_sets_an_account_up() {
    in_a_browser("the page of a link in Chromium without JavaScript", Scripts::Off);
}

#[test]
fn the_page_of_a_link_is_readable_on_a_narrow_screen() {
    if let Some(why) = impediment() {
        figure(&format!("NOT RUN: the page of a link on a narrow screen: {why}"));
        return;
    }
    let gate = Gate::start(Form::OneProcess);
    let (before, path) = gate.link("add alice --roles=access");
    let browser = Browser::start(&gate.web.chain()[0], Scripts::On);
    browser.narrow_to(320);
    browser.open(&format!("{before}{path}"));
    let widths = browser.run("return [document.documentElement.scrollWidth, window.innerWidth]");
    assert_eq!(widths[1], 320, "{widths}");
    assert!(
        widths[0].as_u64() <= Some(320),
        "nothing is beside the screen: {widths}"
    );
}
