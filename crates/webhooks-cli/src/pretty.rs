//! JSON with a line for each value, for people. Numbers, texts and doubled keys stay as they are written.

/// The deepest level that is moved to the right: deep values of strangers do not fill the memory with spaces.
const MAX_INDENT: usize = 16;

/// Returns a text of valid JSON with line breaks and two spaces for each level.
pub(crate) fn pretty(json: &str) -> String {
    let (mut text, mut depth) = (String::new(), 0_usize);
    let (mut is_text, mut is_escaped) = (false, false);
    let mut letters = json.chars().peekable();
    while let Some(letter) = letters.next() {
        if is_text {
            text.push(letter);
            is_text = is_escaped || letter != '"';
            is_escaped = !is_escaped && letter == '\\';
            continue;
        }
        match letter {
            ' ' | '\t' | '\r' | '\n' => {}
            '{' | '[' => {
                text.push(letter);
                while letters.next_if(char::is_ascii_whitespace).is_some() {}
                match letters.next_if(|next| matches!(next, '}' | ']')) {
                    Some(end) => text.push(end),
                    None => {
                        depth += 1;
                        new_line(&mut text, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut text, depth);
                text.push(letter);
            }
            ',' => {
                text.push(letter);
                new_line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            _ => {
                is_text = letter == '"';
                text.push(letter);
            }
        }
    }
    text
}

fn new_line(text: &mut String, depth: usize) {
    text.push('\n');
    text.extend(std::iter::repeat_n("  ", depth.min(MAX_INDENT)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn each_value_has_its_line_and_stays_as_it_is() {
        let json = r#"{"a":[1.50, -0,1e400],"b" :{"c\"}":"x,: \\"},"d":[ ],"e":{},"f":null}"#;
        let lines = r#"{
  "a": [
    1.50,
    -0,
    1e400
  ],
  "b": {
    "c\"}": "x,: \\"
  },
  "d": [],
  "e": {},
  "f": null
}"#;
        assert_eq!(pretty(json), lines);
        assert_eq!(pretty("\"a b\""), "\"a b\"");
    }

    proptest! {
        #[test]
        fn the_value_is_the_same(keys in prop::collection::vec("\\PC{0,5}", 0..5), text in "\\PC*") {
            let value: Value = keys.iter().map(|key| (key.clone(), Value::from(vec![text.clone()]))).collect();
            prop_assert_eq!(&serde_json::from_str::<Value>(&pretty(&value.to_string())).unwrap(), &value);
        }

        #[test]
        fn no_text_ends_the_program(text in "\\PC*") {
            let _pretty = pretty(&text);
        }
    }
}
