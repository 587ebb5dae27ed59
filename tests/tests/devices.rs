//! Spreadsheets of devices and places: as Python writes them in GBK, taken in whole or not at all, and taken back.

use std::process::Output;

use anmin_tests::daemon::anmin;
use anmin_tests::site::Site;

struct Ran {
    is_ok: bool,
    said: String,
}

fn run(site: &Site, arguments: &[&str]) -> Ran {
    let folder = site.folder().display().to_string();
    let words: Vec<String> = arguments.iter().map(|word| word.replace("SITE", &folder)).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Output { status, stdout, stderr } = anmin(&[&["devices"], &words[..]].concat());
    let text = [stdout, stderr].concat();
    Ran { is_ok: status.success(), said: String::from_utf8(text).expect("output is UTF-8") }
}

fn write(site: &Site, name: &str, bytes: &[u8]) {
    std::fs::write(site.path(name), bytes).expect("the target folder can be written");
}

/// `编号,名称,型号,位置,房号` and two devices, in the bytes that Excel in China writes.
const GBK: &[u8] = b"\xb1\xe0\xba\xc5,\xc3\xfb\xb3\xc6,\xd0\xcd\xba\xc5,\xce\xbb\xd6\xc3,\xb7\xbf\xba\xc5\r\n\
    g1,\xb3\xf8\xb7\xbf,anmin-json-gas,b1,501\r\ng2,\xbf\xcd\xcc\xfc,anmin-json-gas,b1,502\r\n";

#[test]
fn a_sheet_is_previewed_taken_in_exported_and_taken_back() {
    let site = Site::new("devices", "");
    write(&site, "sheet.csv", GBK);
    let preview = run(&site, &["import", "SITE/sheet.csv", "SITE", "--preview"]);
    assert!(preview.is_ok && preview.said.contains("+ g1") && preview.said.contains("new 2"), "{}", preview.said);
    assert!(!site.path("devices.csv").exists() && !site.path("anmin.d").exists());
    // Nobody is there to say yes.
    let unasked = run(&site, &["import", "SITE/sheet.csv", "SITE"]);
    assert!(unasked.is_ok && unasked.said.contains("nothing was written"), "{}", unasked.said);
    assert!(!site.path("devices.csv").exists() && !site.path("anmin.d").exists());
    let taken = run(&site, &["import", "SITE/sheet.csv", "SITE", "--yes"]);
    assert!(taken.is_ok, "{}", taken.said);
    let checked = anmin(&["check", &site.folder().display().to_string()]);
    assert!(String::from_utf8_lossy(&checked.stdout).contains("2 devices"), "{checked:?}");
    let text = std::fs::read_to_string(site.path("devices.csv")).expect("the list");
    assert!(text.starts_with("\u{feff}id,profile,name,place,room\r\ng1,anmin-json-gas,厨房,"), "{text}");

    // Export, then import: the same, in both encodings.
    for encoding in ["utf8", "gbk"] {
        let exported = run(&site, &["export", "SITE", "--encoding", encoding, "--output", "SITE/out.csv"]);
        assert!(exported.is_ok, "{}", exported.said);
        let again = run(&site, &["import", "SITE/out.csv", "SITE", "--yes", "--replace"]);
        assert!(again.is_ok && again.said.contains("nothing changes"), "{}", again.said);
    }
    assert_eq!(
        std::fs::read(site.path("out.csv"))
            .expect("it was written")
            .windows(4)
            .filter(|w| w == b"\xb3\xf8\xb7\xbf")
            .count(),
        1
    );

    // Some of the rows, some of the columns; what they do not say stays.
    write(&site, "some.csv", "id,profile,room\ng2,anmin-json-gas,503\ng3,anmin-json-smoke,504\n".as_bytes());
    let taken = run(&site, &["import", "SITE/some.csv", "SITE", "--yes"]);
    assert!(taken.said.contains("~ g2  room: 502 -> 503") && taken.said.contains("+ g3"), "{}", taken.said);
    let text = std::fs::read_to_string(site.path("devices.csv")).expect("the list");
    assert!(text.contains("g2,anmin-json-gas,客厅,b1,503") && text.contains("g1,anmin-json-gas,厨房,b1,501"), "{text}");
    let undone = run(&site, &["undo", "SITE"]);
    assert!(
        undone.is_ok && undone.said.contains("- g3") && undone.said.contains("room: 503 -> 502"),
        "{}",
        undone.said
    );
    assert!(run(&site, &["undo", "SITE"]).said.contains("+ g3"), "a second time puts it back");
    let whole = run(&site, &["import", "SITE/sheet.csv", "SITE", "--yes", "--replace"]);
    assert!(whole.said.contains("- g3"), "{}", whole.said);
}

#[test]
fn faults_are_told_by_row_and_column_of_the_sheet_and_nothing_is_half_applied() {
    let site = Site::new("devices-faults", "");
    write(&site, "sheet.csv", GBK);
    assert!(run(&site, &["import", "SITE/sheet.csv", "SITE", "--yes"]).is_ok);
    let before = std::fs::read(site.path("devices.csv")).expect("the list");
    for (sheet, wanted) in [
        ("id,place,profile\ng7,b1,anmin-json-gas\ng8,b9,anmin-json-gas\n", "bad.csv:3:2: "),
        ("id,place,profile\ng7,b1,anmin-json-gaz\n", "bad.csv:2:3: "),
        // Rows are counted as an editor counts them: CRLF, empty lines, line breaks in cells.
        (
            "\u{feff}id,name,profile\r\n\r\ng7,\"厨房\r\n阳台\",anmin-json-gas\r\ng8,,anmin-json-gaz\r\n",
            "bad.csv:5:3: ",
        ),
        ("id,profile,interval\ng7,anmin-json-gas,soon\n", "bad.csv:2:3: `interval` is \"soon\""),
        ("id,profile\ng7,anmin-json-gas\ng7,anmin-json-gas\n", "bad.csv:3:1: \"g7\" is there twice"),
        ("id,profile,colour\ng7,anmin-json-gas,red\n", "bad.csv:1:3: column \"colour\" is not known"),
        ("id;profile\n", "expected commas"),
        ("", "the file is empty"),
    ] {
        write(&site, "bad.csv", sheet.as_bytes());
        let ran = run(&site, &["import", "SITE/bad.csv", "SITE", "--yes"]);
        assert!(!ran.is_ok && ran.said.contains(wanted), "{sheet}: {}", ran.said);
        assert_eq!(std::fs::read(site.path("devices.csv")).expect("the list"), before, "{sheet}");
    }
    write(&site, "bad.csv", b"PK\x03\x04");
    assert!(run(&site, &["import", "SITE/bad.csv", "SITE", "--yes"]).said.contains("save the sheet as CSV"));
}

#[test]
fn places_come_from_a_sheet_of_their_own_and_devices_may_be_there() {
    let site = Site::new("places", "");
    let places = "编号,网格,楼栋,纬度,经度,微型消防站\nb7,W03,7,36.06,103.83,st-1 st-2\nb8,W03,8,,,\n";
    write(&site, "places.csv.in", places.as_bytes());
    let taken = run(&site, &["import", "SITE/places.csv.in", "SITE", "--yes"]);
    assert!(taken.is_ok && taken.said.contains("new 2"), "{}", taken.said);
    write(&site, "sheet.csv", "id,profile,place\ng1,anmin-json-gas,b7\n".as_bytes());
    assert!(run(&site, &["import", "SITE/sheet.csv", "SITE", "--yes"]).is_ok);
    // A place that a device is at cannot be taken away, nor one come twice, nor a station that is not there.
    for (places, wanted) in [
        ("id,grid\nb9,W01\n", "g1"),
        ("id,grid\nb1,W01\nb7,W03\n", "place \"b1\" is there already"),
        ("id,stations\nb7,st-9\n", "st-9"),
        ("id,latitude,longitude\nb7,96,103\n", "bad.csv:2:2: `latitude` is \"96\""),
        ("id,latitude,longitude\nb7,36,\n", "belong together"),
    ] {
        write(&site, "bad.csv", places.as_bytes());
        let ran = run(&site, &["import", "SITE/bad.csv", "SITE", "--yes", "--replace"]);
        assert!(!ran.is_ok && ran.said.contains(wanted), "{places}: {}", ran.said);
    }
    let exported = run(&site, &["export", "SITE", "--places"]);
    assert!(exported.said.contains("b7,W03,7,36.06,103.83,st-1 st-2"), "{}", exported.said);
    assert!(run(&site, &["undo", "SITE", "--places"]).said.contains("g1"), "its place would be gone");
}

/// A maker's table of registers becomes a device model, and goes the way of every other list.
#[test]
fn a_makers_table_of_points_becomes_a_profile_is_exported_and_taken_back() {
    let site = Site::new("points", "[[bus]]\nid = \"a\"\ntransport = \"tcp\"\nhost = \"127.0.0.1\"\n");
    let table = "测点,类别,寄存器,地址,数据类型,倍率,单位\nu1,power.voltage,保持寄存器,0,uint16,0.1,V\n\
        i1,power.current,03,1,uint16,0.01,A\n";
    write(&site, "table.csv", table.as_bytes());
    assert!(run(&site, &["import", "SITE/table.csv", "SITE"]).said.contains("--profile"), "whose points are they?");
    let import = ["import", "SITE/table.csv", "SITE", "--profile", "my-meter"];
    let preview = run(&site, &[&import[..], &["--preview"]].concat());
    assert!(preview.is_ok && preview.said.contains("+ u1") && preview.said.contains("new 2"), "{}", preview.said);
    assert!(!site.path("profiles").exists());
    let taken = run(&site, &[&import[..], &["--yes"]].concat());
    assert!(taken.is_ok && site.path("profiles/my-meter.csv").exists(), "{}", taken.said);
    write(&site, "sheet.csv", "id,profile,place,bus,unit_id\nm1,my-meter,b1,a,7\n".as_bytes());
    assert!(run(&site, &["import", "SITE/sheet.csv", "SITE", "--yes"]).is_ok);
    let check = || {
        let ran = anmin(&["check", &site.folder().display().to_string()]);
        String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned()
    };
    assert!(check().contains("1 devices") || check().contains("1 device"), "{}", check());

    for encoding in ["utf8", "gbk"] {
        let out = ["export", "SITE", "--profile", "my-meter", "--encoding", encoding, "-o", "SITE/out.csv"];
        assert!(run(&site, &out).is_ok);
        let again = run(&site, &["import", "SITE/out.csv", "SITE", "--profile", "my-meter", "--yes", "--replace"]);
        assert!(again.is_ok && again.said.contains("nothing changes"), "{}", again.said);
    }
    // Faults by row and column; nothing is half applied.
    let before = std::fs::read(site.path("profiles/my-meter.csv")).expect("the table");
    for (rows, wanted) in [
        ("id,kind,register,address\nu2,power.volt,3,4\n", "bad.csv:2:2: "),
        ("id,kind,address,register\nu2,power.voltage,4,3\nu3,power.voltage,x,3\n", "bad.csv:3:3: "),
        ("id,kind,register,address,colour\nu2,power.voltage,3,4,red\n", "bad.csv:1:5: column \"colour\""),
    ] {
        write(&site, "bad.csv", rows.as_bytes());
        let ran = run(&site, &["import", "SITE/bad.csv", "SITE", "--profile", "my-meter", "--yes"]);
        assert!(!ran.is_ok && ran.said.contains(wanted), "{rows}: {}", ran.said);
        assert_eq!(std::fs::read(site.path("profiles/my-meter.csv")).expect("the table"), before, "{rows}");
    }
    write(&site, "more.csv", "id,kind,register,address,scale\nu1,power.voltage,3,10,0.1\n".as_bytes());
    let taken = run(&site, &["import", "SITE/more.csv", "SITE", "--profile", "my-meter", "--yes"]);
    assert!(taken.is_ok && taken.said.contains("address: 0 -> 10"), "{}", taken.said);
    let undone = run(&site, &["undo", "SITE", "--profile", "my-meter"]);
    assert!(undone.is_ok && undone.said.contains("address: 10 -> 0"), "{}", undone.said);
    // Neither a profile that is written by hand, nor one whose devices would lose it.
    site.write("profiles/own.toml", "");
    let own = run(&site, &["import", "SITE/table.csv", "SITE", "--profile", "own", "--yes"]);
    assert!(!own.is_ok && own.said.contains("is there already"), "{}", own.said);
    std::fs::remove_file(site.path("profiles/own.toml")).expect("it is ours");
    write(&site, "none.csv", b"id,kind,register,address\n");
    let gone = run(&site, &["import", "SITE/none.csv", "SITE", "--profile", "my-meter", "--yes", "--replace"]);
    assert!(!gone.is_ok && gone.said.contains("my-meter"), "{}", gone.said);
}
