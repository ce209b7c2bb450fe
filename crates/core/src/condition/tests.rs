//! Laws and examples of `settle`.

use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn ready(state: State) -> Vec<Draft> {
    vec![Draft::new(READY, state, "Because", "so it is")]
}

#[rstest]
#[case(State::True, "True")]
#[case(State::False, "False")]
#[case(State::Unknown, "Unknown")]
fn states_are_spelt_as_in_the_api(#[case] state: State, #[case] text: &str) {
    assert_eq!(state.to_string(), text);
    let settled = settle(&[], ready(state), 3, at(10));
    assert_eq!(settled.len(), 1);
    assert_eq!(settled[0].status, text);
    assert_eq!(settled[0].reason, "Because");
    assert_eq!(settled[0].message, "so it is");
    assert_eq!(settled[0].observed_generation, Some(3));
    assert_eq!(settled[0].last_transition_time, Time(at(10)));
}

#[rstest]
#[case::unchanged(State::True, State::True, 10)]
#[case::flipped(State::True, State::False, 20)]
#[case::unknown(State::False, State::Unknown, 20)]
fn the_transition_time_moves_only_on_a_flip(#[case] old: State, #[case] new: State, #[case] second: i64) {
    let before = settle(&[], ready(old), 1, at(10));
    let after = settle(&before, vec![Draft::new(READY, new, "Other", "other words")], 2, at(20));
    assert_eq!(after[0].last_transition_time, Time(at(second)));
    assert_eq!(
        (after[0].reason.as_str(), after[0].message.as_str()),
        ("Other", "other words")
    );
    assert_eq!(after[0].observed_generation, Some(2));
}

#[test]
fn ready_comes_first_and_undrafted_types_disappear() {
    let before = settle(&[], vec![Draft::new(STALLED, State::True, "Invalid", "")], 1, at(10));
    let drafts = vec![
        Draft::new("Enforced", State::Unknown, "LinkerdNotObserved", ""),
        Draft::new("Accepted", State::True, "Accepted", ""),
        Draft::new(READY, State::True, "Applied", ""),
    ];
    let types: Vec<String> = settle(&before, drafts, 1, at(10))
        .into_iter()
        .map(|c| c.type_)
        .collect();
    assert_eq!(types, [READY, "Accepted", "Enforced"]);
}

#[test]
fn a_time_keeps_whole_seconds_only() {
    let now = Timestamp::new(10, 999_999_999).unwrap();
    assert_eq!(
        settle(&[], ready(State::True), 1, now)[0].last_transition_time,
        Time(at(10))
    );
}

#[test]
fn a_long_message_is_cut_between_characters() {
    let message = format!("a{}", "é".repeat(MESSAGE_LIMIT));
    let cut = &settle(&[], vec![Draft::new(READY, State::True, "R", message)], 1, at(0))[0].message;
    assert_eq!(cut.len(), MESSAGE_LIMIT - 1);
    assert!(cut.ends_with('é'));
}

#[test]
fn of_two_statements_the_worse_stays() {
    let drafts = vec![
        Draft::new(READY, State::True, "A", ""),
        Draft::new(READY, State::False, "B", ""),
        Draft::new(READY, State::Unknown, "C", ""),
    ];
    let settled = settle(&[], drafts, 1, at(0));
    assert_eq!(settled.len(), 1);
    assert_eq!(settled[0].reason, "B");
}

fn state() -> impl Strategy<Value = State> {
    prop_oneof![Just(State::True), Just(State::False), Just(State::Unknown)]
}

fn drafts() -> impl Strategy<Value = Vec<Draft>> {
    let type_ = prop_oneof![
        Just(READY),
        Just(RECONCILING),
        Just(STALLED),
        Just("Enforced"),
        Just("Accepted")
    ];
    let draft = (type_, state(), "[A-C]", "[a-c]{0,2}").prop_map(|(t, s, r, m)| Draft::new(t, s, r, m));
    prop::collection::vec(draft, 0..7)
}

proptest! {
    /// Settling again at any later time changes nothing.
    #[test]
    fn settle_is_idempotent(old in drafts(), new in drafts(), generation in 0_i64..9, later in 1_i64..1000) {
        let before = settle(&[], old, generation, at(100));
        let once = settle(&before, new.clone(), generation, at(200));
        prop_assert_eq!(&settle(&once, new, generation, at(200 + later)), &once);
    }

    /// Neither the order of the drafts nor that of the previous conditions matters.
    #[test]
    fn settle_ignores_order(old in drafts(), (new, shuffled) in drafts().prop_flat_map(|d| (Just(d.clone()), Just(d).prop_shuffle()))) {
        let before = settle(&[], old, 1, at(100));
        let reversed: Vec<Condition> = before.iter().rev().cloned().collect();
        prop_assert_eq!(settle(&before, new, 2, at(200)), settle(&reversed, shuffled, 2, at(200)));
    }

    /// One condition per drafted type; each time is either the old one (same status) or now.
    #[test]
    fn settle_covers_exactly_the_drafts(old in drafts(), new in drafts()) {
        let before = settle(&[], old, 1, at(100));
        let after = settle(&before, new.clone(), 2, at(200));
        let mut wanted: Vec<&str> = new.iter().map(|d| d.type_.as_str()).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut found: Vec<&str> = after.iter().map(|c| c.type_.as_str()).collect();
        found.sort_unstable();
        prop_assert_eq!(found, wanted);
        for condition in &after {
            let same = before.iter().any(|c| c.type_ == condition.type_ && c.status == condition.status);
            prop_assert_eq!(&condition.last_transition_time, &Time(at(if same { 100 } else { 200 })));
        }
    }

    /// What is stored and read back settles like what was computed.
    #[test]
    fn settle_survives_the_wire(new in drafts(), nanosecond in 0_i32..1_000_000_000) {
        let settled = settle(&[], new, 1, Timestamp::new(100, nanosecond).unwrap());
        for condition in settled {
            let wire = condition.last_transition_time.0.to_string();
            prop_assert_eq!(wire.parse::<Timestamp>().unwrap(), condition.last_transition_time.0);
        }
    }
}
