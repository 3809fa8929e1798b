//! The files of `deploy`: their form, and the settings and paths of the program that they name.

use std::path::PathBuf;

use serde_json::Value;

use crate::program::{Place, read};

fn file(name: &str) -> String {
    read(&PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy")).join(name))
}

const FILES_WITH_SETTINGS: [&str; 5] =
    ["Containerfile", "compose.yaml", "kubernetes.yaml", "webhooks.service", "webhooks-tls.conf"];

/// Returns the documents of a file of YAML.
fn yaml(name: &str) -> Vec<Value> {
    let text = file(name);
    let parts = text.split("\n---\n");
    parts
        .map(|part| serde_saphyr::from_str(part).unwrap_or_else(|e| panic!("{name}: {e}")))
        .collect()
}

#[test]
fn each_setting_in_a_file_is_one_of_the_program() {
    let help = Place::new().run(&["serve", "--help"]).ok();
    let mut count = 0;
    for name in FILES_WITH_SETTINGS {
        let text = file(name);
        let words = text.split(|letter: char| !(letter.is_ascii_uppercase() || letter == '_'));
        for word in words.filter(|word| word.starts_with("WEBHOOKS_")) {
            assert!(help.contains(&format!("[env: {word}")), "{name} has {word}");
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
}

#[test]
fn probes_name_paths_that_answer_without_a_key() {
    let mut place = Place::new();
    let served = place.serve(&[]);
    let deployment = yaml("kubernetes.yaml").pop().unwrap();
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let path = container[probe]["httpGet"]["path"].as_str().unwrap();
        let address = served.url.strip_prefix("http://").unwrap();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        std::io::Write::write_all(
            &mut stream,
            format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes(),
        )
        .unwrap();
        let answer = std::io::read_to_string(stream).unwrap();
        assert!(answer.starts_with("HTTP/1.1 204"), "{path}: {answer}");
    }
}

#[test]
fn the_manifests_fit_together() {
    let documents = yaml("kubernetes.yaml");
    let kinds: Vec<_> = documents.iter().filter_map(|found| found["kind"].as_str()).collect();
    assert_eq!(kinds, ["ServiceAccount", "Service", "PodDisruptionBudget", "Deployment"]);
    let [_, service, budget, deployment] = &documents[..] else { panic!("{kinds:?}") };
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    for selector in [
        &service["spec"]["selector"],
        &budget["spec"]["selector"]["matchLabels"],
        &deployment["spec"]["selector"]["matchLabels"],
    ] {
        assert_eq!(selector, labels);
    }
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(service["spec"]["ports"][0]["targetPort"], container["ports"][0]["name"]);
    assert_eq!(container["ports"][0]["containerPort"], 8071);
    // Kubernetes would set variables of the form WEBHOOKS_PORT for a service of this name.
    assert_eq!(pod["enableServiceLinks"], false);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert!(
        file("Containerfile")
            .contains(&format!("USER {0}:{0}", pod["securityContext"]["runAsUser"]))
    );
    let volumes = pod["volumes"].as_array().unwrap();
    for mount in container["volumeMounts"].as_array().unwrap() {
        assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{mount}");
    }
}

#[test]
fn the_services_of_compose_fit_together() {
    let compose = yaml("compose.yaml").pop().unwrap();
    let (database, webhooks) = (&compose["services"]["database"], &compose["services"]["webhooks"]);
    let url = webhooks["environment"]["WEBHOOKS_DATABASE"].as_str().unwrap();
    assert!(
        url.starts_with("postgres://webhooks:") && url.ends_with("@database/webhooks"),
        "{url}"
    );
    assert_eq!(database["environment"]["POSTGRES_USER"], "webhooks");
    assert_eq!(database["environment"]["POSTGRES_DB"], "webhooks");
    assert_eq!(webhooks["depends_on"]["database"]["condition"], "service_healthy");
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy"));
    let context = root.join(webhooks["build"]["context"].as_str().unwrap());
    assert!(context.join(webhooks["build"]["dockerfile"].as_str().unwrap()).exists());
}

#[test]
fn the_program_gets_the_time_to_end_that_it_takes() {
    // Twice the grace of 30 s.
    assert!(file("webhooks.service").contains("\nTimeoutStopSec=75\n"));
    assert!(file("compose.yaml").contains("stop_grace_period: 75s"));
    let deployment = yaml("kubernetes.yaml").pop().unwrap();
    assert_eq!(deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 80);
    let help = Place::new().run(&["serve", "--help"]).ok();
    let grace = help.split("--grace").nth(1).unwrap();
    assert!(grace.split("--").next().unwrap().contains("[default: 30s]"), "{grace}");
}

#[test]
fn systemd_accepts_the_units() {
    let place = Place::new();
    place.write("units/webhooks.socket", &file("webhooks.socket"));
    let program = format!("ExecStart={} serve", env!("CARGO_BIN_EXE_webhooks"));
    let unit = file("webhooks.service").replace("ExecStart=/usr/bin/webhooks serve", &program);
    assert!(unit.contains(&program));
    place.write("units/webhooks.service", &unit);
    place.write("units/webhooks.service.d/tls.conf", &file("webhooks-tls.conf"));
    let mut verify = std::process::Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).current_dir(place.path("units"));
    match verify.args(["./webhooks.service", "./webhooks.socket"]).output() {
        Ok(output) => {
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && !told.contains("webhooks.s"), "{told}");
        }
        // A machine without systemd: what can be said of the units without it was said above.
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
    }
}
