//! The configuration, through the binary: who outranks whom, where a value comes from, and that what
//! does not fit is refused with the key, the source and the reason.

use std::process::Command;

/// What `parlor config` says with this file and these variables; an error if it refuses.
fn config(file: &str, variables: &[(&str, &str)], flags: &[&str]) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("parlor.toml");
    std::fs::write(&path, file).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_parlor"))
        .arg("config")
        .arg("--config")
        .arg(&path)
        .args(flags)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[test]
fn flags_outrank_the_environment_outranks_the_file_and_every_value_knows_its_source() {
    let file = "heartbeat_ms = 5000\nname = 'file'\nlisten = '127.0.0.1:1'\n[limits]\npage = 150\n";
    let variables = [
        ("PARLOR_HEARTBEAT_MS", "6000"),
        ("PARLOR_LISTEN", "127.0.0.1:2"),
        ("PARLOR_LIMITS__GROUP_MEMBERS", "5000"),
        ("PARLOR_QUOTAS__SIGN_UPS_PER_HOUR", "3"),
        ("PARLOR_RATE_LIMITS", "off"),
        ("PARLOR_NODE", "7"),
        ("PARLOR_ALLOWED_ORIGINS", "https://a.example, http://localhost:5173"),
        ("PARLOR_TRUSTED_PROXIES", "10.0.0.0/8,::1"),
        // Set by Kubernetes for a service of this name: not ours.
        ("PARLOR_SERVICE_HOST", "10.0.0.1"),
        ("PARLOR_PORT", "tcp://10.0.0.1:8080"),
        ("PARLOR_PORT_8080_TCP_ADDR", "10.0.0.1"),
    ];
    let lines = config(file, &variables, &["--listen", "127.0.0.1:3"]).unwrap();
    for line in [
        "listen = \"127.0.0.1:3\"    # flag --listen",
        "heartbeat_ms = 6000    # environment PARLOR_HEARTBEAT_MS",
        "name = \"file\"    # file ",
        "node = \"7\"    # environment PARLOR_NODE",
        "limits.page = 150    # file ",
        "limits.group_members = 5000    # environment PARLOR_LIMITS__GROUP_MEMBERS",
        "limits.batch = 100    # default",
        "quotas.sign_ups_per_hour = 3    # environment PARLOR_QUOTAS__SIGN_UPS_PER_HOUR",
        "rate_limits = \"off\"    # environment PARLOR_RATE_LIMITS",
        "[\"https://a.example\",\"http://localhost:5173\"]    # environment PARLOR_ALLOWED_ORIGINS",
        "[\"10.0.0.0/8\",\"::1/128\"]    # environment PARLOR_TRUSTED_PROXIES",
    ] {
        assert!(lines.contains(line), "{line}\n{lines}");
    }
}

#[test]
fn what_does_not_fit_is_refused_with_key_source_and_reason() {
    for (file, variables, key, source) in [
        ("colour = 'red'", vec![], "colour: there is no such key", "file "),
        ("[limits]\nwidth = 1", vec![], "limits.width: there is no such key", "file "),
        ("", vec![("PARLOR_COLOUR", "red")], "colour: there is", "environment PARLOR_COLOUR"),
        (
            "",
            vec![("PARLOR_LIMITS__PAGE", "x")],
            "limits.page: ",
            "environment PARLOR_LIMITS__PAGE",
        ),
        ("", vec![("PARLOR_LISTEN", "here")], "listen: ", "environment PARLOR_LISTEN"),
        (
            "",
            vec![("PARLOR_HEARTBEAT_MS", "1")],
            "heartbeat_ms: ",
            "environment PARLOR_HEARTBEAT_MS",
        ),
        (
            "",
            vec![("PARLOR_RATE_LIMITS", "few")],
            "rate_limits: ",
            "environment PARLOR_RATE_LIMITS",
        ),
        ("trusted_proxies = ['10.0.0.0/33']", vec![], "trusted_proxies: ", "file "),
        ("allowed_origins = ['*']", vec![], "allowed_origins: ", "file "),
        ("public_url = 'chat.example'", vec![], "public_url: ", "file "),
        ("[quotas]\nlook_ups = 0", vec![], "quotas.look_ups: ", "file "),
    ] {
        let text = config(file, &variables, &[]).unwrap_err();
        assert!(text.contains(&format!("parlor: {key}")), "{key}: {text}");
        assert!(text.contains(&format!("from {source}")), "{source}: {text}");
    }
}

#[test]
fn check_looks_at_the_data_folder_too() {
    let folder = tempfile::tempdir().unwrap();
    let check = |variables: &[(&str, &str)]| {
        Command::new(env!("CARGO_BIN_EXE_parlor"))
            .arg("check")
            .arg("--data")
            .arg(folder.path())
            .env_clear()
            .envs(variables.iter().copied())
            .output()
            .unwrap()
    };
    assert!(check(&[]).status.success());
    let open = check(&[("PARLOR_LISTEN", "0.0.0.0:8080")]);
    assert!(String::from_utf8(open.stdout).unwrap().contains("without encryption"));
    std::fs::write(folder.path().join("secret.key"), "short").unwrap();
    let refused = check(&[]);
    assert!(!refused.status.success());
    assert!(String::from_utf8(refused.stderr).unwrap().contains("holds 5 bytes instead of 32"));
}
