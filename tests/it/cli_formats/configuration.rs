use insta::assert_snapshot;

use super::{FORMATS, set, shown};
use crate::support::Place;

#[test]
fn configuration_list_get_and_export() {
    let place = Place::new();
    set(&place, "/prod/motd", "two\nlines, \"quoted\" <b>=cmd()</b> \u{1b}[31m 😀");
    set(&place, "/prod/port", "8000");
    assert_snapshot!(shown(&place, &["configuration", "list", "--namespace=prod"], &FORMATS), @r#"
    $ raxsr configuration list --namespace=prod -f table
    +------------+--------------------------------------------------+
    | ID         | Value                                            |
    +===============================================================+
    | /prod/motd | two\nlines, "quoted" <b>=cmd()</b> \u{1b}[31m 😀 |
    | /prod/port | 8000                                             |
    +------------+--------------------------------------------------+

    Limit: 100

    $ raxsr configuration list --namespace=prod -f csv
    ID,Value
    /prod/motd,"two
    lines, ""quoted"" <b>=cmd()</b> [31m 😀"
    /prod/port,8000

    $ raxsr configuration list --namespace=prod -f json
    {
      "values": [
        {
          "id": "/prod/motd",
          "value": "two\nlines, \"quoted\" <b>=cmd()</b> \u001b[31m 😀"
        },
        {
          "id": "/prod/port",
          "value": "8000"
        }
      ],
      "metadata": {
        "count": 2,
        "limit": 100,
        "next_marker": null
      }
    }

    $ raxsr configuration list --namespace=prod -f yaml
    values:
    - id: /prod/motd
      value: "two\nlines, \"quoted\" <b>=cmd()</b> \e[31m 😀"
    - id: /prod/port
      value: '8000'
    metadata:
      count: 2
      limit: 100
      next_marker: null

    $ raxsr configuration list --namespace=prod -f html
    <table>
    <tr><th>ID</th><th>Value</th></tr>
    <tr><td>/prod/motd</td><td>two<br>lines, &quot;quoted&quot; &lt;b&gt;=cmd()&lt;/b&gt; �[31m 😀</td></tr>
    <tr><td>/prod/port</td><td>8000</td></tr>
    </table>
    "#);
    assert_snapshot!(shown(&place, &["configuration", "get", "--id=/prod/port"], &FORMATS), @r#"
    $ raxsr configuration get --id=/prod/port -f table
    +-------+------------+
    | Field | Value      |
    +====================+
    | ID    | /prod/port |
    | Value | 8000       |
    +-------+------------+

    $ raxsr configuration get --id=/prod/port -f csv
    ID,Value
    /prod/port,8000

    $ raxsr configuration get --id=/prod/port -f json
    {
      "id": "/prod/port",
      "value": "8000"
    }

    $ raxsr configuration get --id=/prod/port -f yaml
    id: /prod/port
    value: '8000'

    $ raxsr configuration get --id=/prod/port -f html
    <table>
    <tr><th>ID</th><th>Value</th></tr>
    <tr><td>/prod/port</td><td>8000</td></tr>
    </table>
    "#);
    assert_snapshot!(shown(&place, &["configuration", "export", "prod"], &["yaml", "json"]), @r#"
    $ raxsr configuration export prod -f yaml
    /prod/motd: "two\nlines, \"quoted\" <b>=cmd()</b> \e[31m 😀"
    /prod/port: '8000'

    $ raxsr configuration export prod -f json
    {
      "/prod/motd": "two\nlines, \"quoted\" <b>=cmd()</b> \u001b[31m 😀",
      "/prod/port": "8000"
    }
    "#);
}
