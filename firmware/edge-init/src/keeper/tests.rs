use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const TRIAL: Trial = Trial { commit: s(60), patience: s(900), failures: 3 };

fn start(trial: Option<Trial>) -> Keeper {
    let mut keeper = Keeper::new(s(10), Limits::default(), trial);
    assert_eq!(keeper.handle(s(10), Event::Tick), [Action::Start { configured: true }]);
    keeper
}

fn said(actions: &[Action], part: &str) -> bool {
    actions.iter().any(|action| matches!(action, Action::Say(text) if text.contains(part)))
}

#[test]
fn pauses_grow_and_begin_anew_after_a_sound_run() {
    let mut keeper = start(None);
    let mut now = s(10);
    for pause in [2, 4, 8, 16, 32, 60, 60] {
        now += s(1);
        let actions = keeper.handle(now, Event::Exited(Exit::Code(101)));
        assert!(said(&actions, &format!("ended with code 101; it starts again in {pause} s")), "{actions:?}");
        assert_eq!(keeper.deadline(), Some(now + s(pause)));
        assert!(keeper.handle(now + s(pause) - Duration::from_millis(1), Event::Tick).is_empty());
        now += s(pause);
        assert_eq!(keeper.handle(now, Event::Tick), [Action::Start { configured: true }]);
    }
    assert!(said(&keeper.handle(now, Event::Ready), "camera is ready"));
    for _ in 0..4 {
        now += s(30);
        assert!(keeper.handle(now, Event::Alive).is_empty());
    }
    assert!(said(&keeper.handle(now, Event::Exited(Exit::Signal(11))), "signal 11; it starts again in 2 s"));
    keeper.handle(now + s(2), Event::Tick);
    assert!(said(&keeper.handle(now + s(3), Event::Ready), "camera is ready again"));
}

#[test]
fn a_program_that_hangs_is_killed_and_started_again() {
    let mut keeper = start(None);
    // Before it is ready it may take long, and steps of the start count.
    assert!(keeper.handle(s(300), Event::Alive).is_empty());
    assert!(keeper.handle(s(599), Event::Tick).is_empty());
    keeper.handle(s(599), Event::Ready);
    keeper.handle(s(620), Event::Alive);
    assert!(keeper.handle(s(679), Event::Tick).is_empty());
    assert!(keeper.feeds(s(679)));
    let actions = keeper.handle(s(680), Event::Tick);
    assert!(said(&actions, "hangs: no sign of life for 60 s") && actions.contains(&Action::Kill), "{actions:?}");
    assert!(keeper.feeds(s(681)));
    // It ran for more than a minute before: pauses begin anew.
    let actions = keeper.handle(s(681), Event::Exited(Exit::Signal(9)));
    assert!(said(&actions, "starts again in 2 s"), "{actions:?}");
    assert_eq!(keeper.handle(s(683), Event::Tick), [Action::Start { configured: true }]);
    // One that never becomes ready.
    let actions = keeper.handle(s(983), Event::Tick);
    assert!(actions.contains(&Action::Kill), "{actions:?}");
}

#[test]
fn a_process_that_cannot_be_killed_restarts_the_machine_and_starves_the_watchdog() {
    let mut keeper = start(None);
    keeper.handle(s(11), Event::Ready);
    assert!(keeper.handle(s(71), Event::Tick).contains(&Action::Kill));
    assert!(keeper.feeds(s(130)) && !keeper.feeds(s(131)));
    assert_eq!(keeper.deadline(), Some(s(131)));
    assert!(keeper.handle(s(131), Event::Tick).contains(&Action::End(Ending::Reboot)));
}

#[test]
fn a_keeper_that_is_not_asked_starves_the_watchdog() {
    let keeper = start(None);
    assert!(keeper.feeds(s(10 + 359)) && !keeper.feeds(s(10 + 360)));
}

#[test]
fn a_refused_configuration_is_left_out() {
    let mut keeper = start(None);
    let actions = keeper.handle(s(11), Event::Exited(Exit::Code(2)));
    assert!(said(&actions, "refuses its configuration"), "{actions:?}");
    assert_eq!(keeper.handle(s(13), Event::Tick), [Action::Start { configured: false }]);
    // A second time there is nothing left to leave out.
    assert!(said(&keeper.handle(s(14), Event::Exited(Exit::Code(2))), "ended with code 2; it starts again"));
    assert_eq!(keeper.handle(s(18), Event::Tick), [Action::Start { configured: false }]);
}

#[test]
fn on_trial_a_refused_configuration_is_a_failure() {
    let mut keeper = start(Some(TRIAL));
    let mut now = s(10);
    for failure in 1..=3 {
        now += s(1);
        let actions = keeper.handle(now, Event::Exited(Exit::Code(2)));
        assert_eq!(actions.contains(&Action::End(Ending::Reboot)), failure == 3, "{actions:?}");
        if failure < 3 {
            now += s(10);
            assert_eq!(keeper.handle(now, Event::Tick), [Action::Start { configured: true }]);
        } else {
            assert!(said(&actions, "on trial, and the camera failed 3 times; ended with code 2"), "{actions:?}");
        }
    }
}

#[test]
fn a_trial_is_kept_after_a_while_of_classifying() {
    let mut keeper = start(Some(TRIAL));
    keeper.handle(s(11), Event::Ready);
    assert!(keeper.handle(s(50), Event::Alive).is_empty());
    // A source that waits shows life but has not classified.
    for now in (60..300).step_by(20) {
        assert!(keeper.handle(s(now), Event::Alive).is_empty());
    }
    keeper.handle(s(300), Event::Classified);
    assert!(keeper.handle(s(350), Event::Alive).is_empty());
    assert_eq!(keeper.handle(s(360), Event::Alive), [Action::Commit]);
    // Writing it failed: the next sign of life tries again.
    assert_eq!(keeper.handle(s(370), Event::Alive), [Action::Commit]);
    assert!(keeper.handle(s(370), Event::Committed).is_empty());
    assert!(keeper.handle(s(380), Event::Alive).is_empty());
    // Kept is kept: nothing reboots it now.
    for now in (400..2000).step_by(50) {
        assert!(keeper.handle(s(now), Event::Alive).is_empty());
    }
}

#[test]
fn what_was_classified_before_a_restart_proves_nothing() {
    let mut keeper = start(Some(TRIAL));
    keeper.handle(s(11), Event::Ready);
    keeper.handle(s(12), Event::Classified);
    keeper.handle(s(13), Event::Exited(Exit::Signal(11)));
    keeper.handle(s(15), Event::Tick);
    keeper.handle(s(16), Event::Ready);
    for now in (20..500).step_by(20) {
        assert!(keeper.handle(s(now), Event::Alive).is_empty());
    }
}

#[test]
fn a_trial_that_proves_nothing_ends() {
    let mut keeper = start(Some(TRIAL));
    keeper.handle(s(11), Event::Ready);
    for now in (50..910).step_by(50) {
        assert!(keeper.handle(s(now), Event::Alive).is_empty(), "{now}");
    }
    assert_eq!(keeper.deadline(), Some(s(910)));
    let actions = keeper.handle(s(910), Event::Tick);
    assert!(said(&actions, "has not proven itself in 900 s") && actions.contains(&Action::Terminate), "{actions:?}");
    assert_eq!(keeper.handle(s(911), Event::Exited(Exit::Code(0))), [Action::End(Ending::Reboot)]);
}

#[test]
fn the_end_of_a_source_is_no_failure_of_a_trial() {
    let mut keeper = start(Some(TRIAL));
    let mut now = s(10);
    for _ in 0..5 {
        keeper.handle(now + s(1), Event::Ready);
        let actions = keeper.handle(now + s(2), Event::Exited(Exit::Code(0)));
        assert!(said(&actions, "has ended"), "{actions:?}");
        now += s(62);
        assert_eq!(keeper.handle(now, Event::Tick), [Action::Start { configured: true }]);
    }
    // But one that ends before it is ready has failed.
    for failure in 1..=3 {
        let actions = keeper.handle(now, Event::Exited(Exit::Code(0)));
        assert_eq!(actions.contains(&Action::End(Ending::Reboot)), failure == 3);
        now += s(62);
        keeper.handle(now, Event::Tick);
    }
}

#[test]
fn the_device_goes_down_whatever_runs() {
    for ending in [Ending::PowerOff, Ending::Reboot, Ending::Halt] {
        let mut keeper = start(None);
        keeper.handle(s(11), Event::Ready);
        assert_eq!(keeper.handle(s(20), Event::Asked(ending)), [Action::Terminate]);
        assert_eq!(keeper.handle(s(21), Event::Exited(Exit::Code(0))), [Action::End(ending)]);
        assert!(!keeper.feeds(s(21)) && keeper.deadline().is_none());
    }
    // While it rests.
    let mut keeper = start(None);
    keeper.handle(s(11), Event::NotStarted("no such file".into()));
    assert_eq!(keeper.handle(s(12), Event::Asked(Ending::PowerOff)), [Action::End(Ending::PowerOff)]);
    // A program that does not listen, and then cannot be killed; and somebody who asks for something else meanwhile.
    let mut keeper = start(None);
    keeper.handle(s(20), Event::Asked(Ending::PowerOff));
    assert!(keeper.handle(s(21), Event::Asked(Ending::Reboot)).is_empty());
    assert_eq!(keeper.handle(s(25), Event::Tick), [Action::Kill]);
    assert_eq!(keeper.deadline(), Some(s(85)));
    assert_eq!(keeper.handle(s(85), Event::Tick), [Action::End(Ending::Reboot)]);
    // A program that was just killed because it hung.
    let mut keeper = start(None);
    keeper.handle(s(11), Event::Ready);
    keeper.handle(s(71), Event::Tick);
    assert!(keeper.handle(s(72), Event::Asked(Ending::PowerOff)).is_empty());
    assert_eq!(keeper.handle(s(73), Event::Exited(Exit::Signal(9))), [Action::End(Ending::PowerOff)]);
}

/// A world around the keeper: at most one process, which obeys or not.
#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Event(Event),
    Exit(Exit),
    /// What was asked of the process happens.
    Obey,
}

fn steps() -> impl Strategy<Value = Step> {
    let exit = prop_oneof![(0..7i32).prop_map(Exit::Code), (1..16i32).prop_map(Exit::Signal)];
    let ending = prop_oneof![Just(Ending::PowerOff), Just(Ending::Reboot), Just(Ending::Halt)];
    prop_oneof![
        8 => (0..40_000u64).prop_map(Step::Wait),
        1 => (0..400_000u64).prop_map(Step::Wait),
        3 => Just(Step::Event(Event::Ready)),
        6 => Just(Step::Event(Event::Alive)),
        3 => Just(Step::Event(Event::Classified)),
        2 => exit.prop_map(Step::Exit),
        4 => Just(Step::Obey),
        1 => ending.prop_map(|ending| Step::Event(Event::Asked(ending))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever happens in whatever order: never two processes; nothing after the end; a commit only of a trial that is
    /// ready and classifies; pauses within their limits; time that is due is acted on; and the end that was asked for comes.
    #[test]
    fn whatever_happens(steps in prop::collection::vec(steps(), 1..120), on_trial: bool) {
        let limits = Limits::default();
        let mut keeper = Keeper::new(Duration::ZERO, limits, on_trial.then_some(TRIAL));
        let mut now = Duration::ZERO;
        let (mut runs, mut ready, mut classified, mut kept) = (false, false, false, !on_trial);
        let (mut over, mut asked, mut died) = (None, None, None);
        let mut doomed = false;
        let mut events: VecDeque<Event> = VecDeque::from([Event::Tick]);
        for step in std::iter::once(Step::Obey).chain(steps) {
            match step {
                Step::Wait(milliseconds) => {
                    now += Duration::from_millis(milliseconds);
                    events.push_back(Event::Tick);
                }
                Step::Event(event) => {
                    // A process that is not there says nothing.
                    if runs || matches!(event, Event::Asked(_)) {
                        ready |= event == Event::Ready;
                        classified |= event == Event::Classified;
                        if let Event::Asked(ending) = event {
                            asked = Some((ending, asked.map_or(now, |(_, at)| at)));
                        }
                        events.push_back(event);
                    }
                }
                Step::Exit(exit) if runs => events.push_back(Event::Exited(exit)),
                Step::Obey if runs && doomed => events.push_back(Event::Exited(Exit::Signal(9))),
                Step::Exit(_) | Step::Obey => {}
            }
            while let Some(event) = events.pop_front() {
                if matches!(event, Event::Exited(_)) {
                    (runs, ready, classified, doomed, died) = (false, false, false, false, Some(now));
                }
                for action in keeper.handle(now, event) {
                    prop_assert!(over.is_none(), "{action:?} after the end");
                    match action {
                        Action::Start { .. } => {
                            prop_assert!(!runs && asked.is_none());
                            if let Some(died) = died {
                                prop_assert!(now - died >= limits.shortest_pause);
                            }
                            runs = true;
                        }
                        Action::Terminate | Action::Kill => {
                            prop_assert!(runs);
                            doomed = true;
                        }
                        Action::Commit => {
                            prop_assert!(!kept && ready && classified && now >= TRIAL.commit);
                            kept = true;
                            events.push_back(Event::Committed);
                        }
                        Action::Say(text) => prop_assert!(!text.is_empty()),
                        Action::End(ending) => over = Some(ending),
                    }
                }
            }
            if let Some(deadline) = keeper.deadline() {
                prop_assert!(deadline > now, "what was due at {deadline:?} is not done at {now:?}");
                prop_assert!(keeper.feeds(now));
                if !runs && let Some(died) = died {
                    prop_assert!(deadline <= died + limits.longest_pause);
                }
            } else {
                prop_assert!(over.is_some());
            }
            if over.is_some() {
                break;
            }
        }
        if let Some((ending, at)) = asked {
            for wait in [limits.stop, limits.gone] {
                now = now.max(at) + wait;
                over = over.or(keeper.handle(now, Event::Tick).iter().find_map(|action| match action {
                    Action::End(ending) => Some(*ending),
                    _ => None,
                }));
            }
            prop_assert!(over.is_some(), "asked to end in {ending:?}");
        }
    }
}
