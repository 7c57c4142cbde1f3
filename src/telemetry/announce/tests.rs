use super::*;

fn at(secs: u64) -> Moment {
    Moment::from_nanos(secs * 1_000_000_000)
}

fn found(rule: StuckRule, room: &str, since: Moment) -> Found {
    Found {
        rule,
        room: room.to_owned(),
        peer: "rbac".to_owned(),
        sentence: "it hangs".to_owned(),
        next: "postern actor rbac".to_owned(),
        since,
        connection: None,
        side: None,
        alarms: false,
    }
}

fn full(since: Moment) -> [Found; 1] {
    [found(StuckRule::MailboxFull, "rbac", since)]
}

fn kinds(said: &[Said]) -> Vec<&'static str> {
    let kind = |said: &Said| match said {
        Said::Began { .. } => "began",
        Said::Ended { .. } => "ended",
        Said::Further { .. } => "further",
    };
    said.iter().map(kind).collect()
}

#[test]
fn a_case_is_said_once_when_it_begins_and_once_when_it_has_ended() {
    let mut announcer = Announcer::default();
    assert!(announcer.hear(&full(at(100)), at(100)).is_empty(), "it may be a burst");
    assert_eq!(kinds(&announcer.hear(&full(at(100)), at(101))), ["began"]);
    assert!(announcer.hear(&full(at(100)), at(130)).is_empty());
    assert!(announcer.hear(&[], at(135)).is_empty());
    let said = announcer.hear(&[], at(140));
    assert!(
        matches!(said.as_slice(), [Said::Ended { lasted, .. }] if *lasted == Duration::from_secs(30)),
        "{said:?}"
    );
}

#[test]
fn what_comes_and_goes_is_one_case() {
    let mut announcer = Announcer::default();
    let mut said = Vec::new();
    for second in 0..40 {
        let stuck = full(at(100 + second));
        let seen: &[Found] = if second % 2 == 0 { &stuck } else { &[] };
        said.extend(announcer.hear(seen, at(100 + second)));
    }
    assert_eq!(kinds(&said), ["began"]);
    assert_eq!(count(&announcer, StuckRule::MailboxFull).began, 1);
}

#[test]
fn a_burst_is_counted_and_not_said() {
    let mut announcer = Announcer::default();
    announcer.hear(&full(at(100)), at(100));
    assert_eq!(
        count(&announcer, StuckRule::MailboxFull),
        RuleCount { began: 1, open: 1 }
    );
    assert!(announcer.hear(&[], at(120)).is_empty());
    assert_eq!(
        count(&announcer, StuckRule::MailboxFull),
        RuleCount { began: 1, open: 0 }
    );
}

#[test]
fn a_long_query_is_counted_and_logged_only_where_it_is_an_alarm() {
    let mut announcer = Announcer::default();
    let mut silent = [found(StuckRule::UpstreamSilent, "connection 1", at(60))];
    assert!(announcer.hear(&silent, at(100)).is_empty());
    assert_eq!(count(&announcer, StuckRule::UpstreamSilent).open, 1);
    silent[0].alarms = true;
    assert_eq!(kinds(&announcer.hear(&silent, at(101))), ["began"]);
}

#[test]
fn a_fault_that_meets_a_thousand_is_not_a_thousand_lines() {
    let mut announcer = Announcer::default();
    let all: Vec<_> = (0..2000)
        .map(|number| found(StuckRule::ReplyOverdue, &format!("connection#{number}"), at(90)))
        .collect();
    let said = announcer.hear(&all, at(100));
    assert_eq!(said.len(), LINES_MAX + 1);
    assert_eq!(
        said.last(),
        Some(&Said::Further {
            cases: CASES_MAX - LINES_MAX
        })
    );
    assert_eq!(count(&announcer, StuckRule::ReplyOverdue).open, 2000);
}

#[test]
fn the_end_is_said_of_what_was_said_to_begin_and_of_nothing_else() {
    let mut announcer = Announcer::default();
    let all: Vec<_> = (0..LINES_MAX + 30)
        .map(|number| found(StuckRule::ReplyOverdue, &format!("connection#{number}"), at(90)))
        .collect();
    assert_eq!(announcer.hear(&all, at(100)).len(), LINES_MAX + 1);
    assert!(announcer.hear(&all, at(101)).is_empty(), "the others are counted once");
    // Ends for which this look has no room are said by the next.
    let others: Vec<_> = (0..5)
        .map(|number| found(StuckRule::MailboxFull, &format!("actor#{number}"), at(105)))
        .collect();
    let kinds_of = |said: Vec<Said>, kind| kinds(&said).into_iter().filter(|said| *said == kind).count();
    let said = announcer.hear(&others, at(111));
    assert_eq!(said.len(), LINES_MAX);
    assert_eq!(kinds_of(said, "ended"), LINES_MAX - 5);
    assert_eq!(kinds_of(announcer.hear(&others, at(112)), "ended"), 5);
    assert!(announcer.hear(&others, at(113)).is_empty());
}

fn count(announcer: &Announcer, rule: StuckRule) -> RuleCount {
    let counts = announcer.counts();
    counts.iter().find(|(other, _)| *other == rule).expect("each rule").1
}
