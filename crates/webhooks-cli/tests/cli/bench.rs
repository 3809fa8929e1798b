//! `bench`: its figures, and what it leaves behind.

use crate::program::Place;

#[test]
fn it_delivers_all_events_and_tells_the_ratio() {
    let mut place = Place::new();
    let temporary = place.path("tmp");
    std::fs::create_dir(&temporary).unwrap();
    place.set("TMPDIR", temporary.to_str().unwrap());
    let options = ["--events", "150", "--endpoints", "2", "--concurrency", "4", "--size", "100"];
    let told = place.run(&[&["bench", "--json", "--compare-bare"], &options[..]].concat()).json();
    let figure = |name: &str| told[name].as_f64().unwrap();
    assert!(figure("eventsPerSecond") > 0.0 && figure("barePerSecond") > 0.0, "{told}");
    // Each event goes to two endpoints.
    let twice = figure("deliveriesPerSecond") / figure("eventsPerSecond");
    assert!((twice - 2.0).abs() < 0.01 && figure("overBare") > 0.0, "{told}");
    assert!(told["machine"].as_str().unwrap().contains("processors"), "{told}");
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
}

#[test]
fn without_the_bare_loop_it_tells_events_per_second_alone() {
    let ended = Place::new().run(&["bench", "--events", "1"]);
    assert!(ended.err.contains("1 events of 500 bytes"), "{ended:?}");
    let out = ended.ok();
    assert!(out.contains(" events/s") && !out.contains("ratio"), "{out}");
}

#[test]
fn sizes_out_of_bounds_are_refused() {
    for option in ["--events", "--endpoints", "--size", "--concurrency"] {
        Place::new().run(&["bench", option, "0"]).failed(2, &[option]);
    }
}
