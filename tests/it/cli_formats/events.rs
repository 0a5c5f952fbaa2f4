use insta::assert_snapshot;

use super::{FORMATS, set, shown, with_services};

#[test]
#[expect(clippy::too_many_lines, reason = "what it shows is that long")]
fn events_list() {
    let place = with_services();
    assert!(place.raxsr(&["services", "remove", "web-1"]).status.success());
    set(&place, "/prod/key", "1");
    set(&place, "/prod/key", "2");
    assert!(place.raxsr(&["configuration", "remove", "/prod/key"]).status.success());
    assert_snapshot!(shown(&place, &["events", "list"], &FORMATS), @r#"
    $ raxsr events list -f table
    +--------------------------------------+---------------------+----------------------------+------------------------------------------------------------------+
    | Event ID                             | Timestamp           | Event Type                 | Payload                                                          |
    +============================================================================================================================================================+
    | 00000000-0000-0000-0000-000000000000 | 0000-00-00 00:00:00 | configuration_value.remove | configuration_value_id: /prod/key                                |
    |                                      |                     |                            | old_value: 2                                                     |
    | 00000000-0000-0000-0000-000000000000 | 0000-00-00 00:00:00 | configuration_value.update | configuration_value_id: /prod/key                                |
    |                                      |                     |                            | old_value: 1                                                     |
    |                                      |                     |                            | new_value: 2                                                     |
    | 00000000-0000-0000-0000-000000000000 | 0000-00-00 00:00:00 | configuration_value.update | configuration_value_id: /prod/key                                |
    |                                      |                     |                            | old_value:                                                       |
    |                                      |                     |                            | new_value: 1                                                     |
    | 00000000-0000-0000-0000-000000000000 | 0000-00-00 00:00:00 | service.remove             | id: web-1                                                        |
    |                                      |                     |                            | heartbeat_timeout: 120                                           |
    |                                      |                     |                            | tags: www                                                        |
    |                                      |                     |                            | metadata: host: 10.0.0.7, port: 80                               |
    | 00000000-0000-0000-0000-000000000000 | 0000-00-00 00:00:00 | service.join               | id: web-1                                                        |
    |                                      |                     |                            | heartbeat_timeout: 120                                           |
    |                                      |                     |                            | tags: www                                                        |
    |                                      |                     |                            | metadata: host: 10.0.0.7, port: 80                               |
    | 00000000-0000-0000-0000-000000000000 | 0000-00-00 00:00:00 | service.join               | id: db-1                                                         |
    |                                      |                     |                            | heartbeat_timeout: 120                                           |
    |                                      |                     |                            | tags: db, =cmd()                                                 |
    |                                      |                     |                            | metadata: host: ::1, note: a "quote", <b>\n=cmd() 😀, port: 5432 |
    +--------------------------------------+---------------------+----------------------------+------------------------------------------------------------------+

    Limit: 100

    $ raxsr events list -f csv
    Event ID,Timestamp,Event Type,Payload
    00000000-0000-0000-0000-000000000000,0000-00-00T00:00:00.000Z,configuration_value.remove,"configuration_value_id: /prod/key
    old_value: 2"
    00000000-0000-0000-0000-000000000000,0000-00-00T00:00:00.000Z,configuration_value.update,"configuration_value_id: /prod/key
    old_value: 1
    new_value: 2"
    00000000-0000-0000-0000-000000000000,0000-00-00T00:00:00.000Z,configuration_value.update,"configuration_value_id: /prod/key
    old_value: 
    new_value: 1"
    00000000-0000-0000-0000-000000000000,0000-00-00T00:00:00.000Z,service.remove,"id: web-1
    heartbeat_timeout: 120
    tags: www
    metadata: host: 10.0.0.7, port: 80"
    00000000-0000-0000-0000-000000000000,0000-00-00T00:00:00.000Z,service.join,"id: web-1
    heartbeat_timeout: 120
    tags: www
    metadata: host: 10.0.0.7, port: 80"
    00000000-0000-0000-0000-000000000000,0000-00-00T00:00:00.000Z,service.join,"id: db-1
    heartbeat_timeout: 120
    tags: db, =cmd()
    metadata: host: ::1, note: a ""quote"", <b>
    =cmd() 😀, port: 5432"

    $ raxsr events list -f json
    {
      "values": [
        {
          "id": "00000000-0000-0000-0000-000000000000",
          "timestamp": "0000-00-00T00:00:00.000Z",
          "type": "configuration_value.remove",
          "payload": {
            "old_value": "2",
            "configuration_value_id": "/prod/key"
          }
        },
        {
          "id": "00000000-0000-0000-0000-000000000000",
          "timestamp": "0000-00-00T00:00:00.000Z",
          "type": "configuration_value.update",
          "payload": {
            "old_value": "1",
            "new_value": "2",
            "configuration_value_id": "/prod/key"
          }
        },
        {
          "id": "00000000-0000-0000-0000-000000000000",
          "timestamp": "0000-00-00T00:00:00.000Z",
          "type": "configuration_value.update",
          "payload": {
            "old_value": null,
            "new_value": "1",
            "configuration_value_id": "/prod/key"
          }
        },
        {
          "id": "00000000-0000-0000-0000-000000000000",
          "timestamp": "0000-00-00T00:00:00.000Z",
          "type": "service.remove",
          "payload": {
            "id": "web-1",
            "heartbeat_timeout": 120,
            "tags": [
              "www"
            ],
            "metadata": {
              "host": "10.0.0.7",
              "port": "80"
            }
          }
        },
        {
          "id": "00000000-0000-0000-0000-000000000000",
          "timestamp": "0000-00-00T00:00:00.000Z",
          "type": "service.join",
          "payload": {
            "id": "web-1",
            "heartbeat_timeout": 120,
            "tags": [
              "www"
            ],
            "metadata": {
              "host": "10.0.0.7",
              "port": "80"
            }
          }
        },
        {
          "id": "00000000-0000-0000-0000-000000000000",
          "timestamp": "0000-00-00T00:00:00.000Z",
          "type": "service.join",
          "payload": {
            "id": "db-1",
            "heartbeat_timeout": 120,
            "tags": [
              "db",
              "=cmd()"
            ],
            "metadata": {
              "host": "::1",
              "note": "a \"quote\", <b>\n=cmd() 😀",
              "port": "5432"
            }
          }
        }
      ],
      "metadata": {
        "count": 6,
        "limit": 100,
        "next_marker": null
      }
    }

    $ raxsr events list -f yaml
    values:
    - id: 00000000-0000-0000-0000-000000000000
      timestamp: 0000-00-00T00:00:00.000Z
      type: configuration_value.remove
      payload:
        old_value: '2'
        configuration_value_id: /prod/key
    - id: 00000000-0000-0000-0000-000000000000
      timestamp: 0000-00-00T00:00:00.000Z
      type: configuration_value.update
      payload:
        old_value: '1'
        new_value: '2'
        configuration_value_id: /prod/key
    - id: 00000000-0000-0000-0000-000000000000
      timestamp: 0000-00-00T00:00:00.000Z
      type: configuration_value.update
      payload:
        old_value: null
        new_value: '1'
        configuration_value_id: /prod/key
    - id: 00000000-0000-0000-0000-000000000000
      timestamp: 0000-00-00T00:00:00.000Z
      type: service.remove
      payload:
        id: web-1
        heartbeat_timeout: 120
        tags:
        - www
        metadata:
          host: 10.0.0.7
          port: '80'
    - id: 00000000-0000-0000-0000-000000000000
      timestamp: 0000-00-00T00:00:00.000Z
      type: service.join
      payload:
        id: web-1
        heartbeat_timeout: 120
        tags:
        - www
        metadata:
          host: 10.0.0.7
          port: '80'
    - id: 00000000-0000-0000-0000-000000000000
      timestamp: 0000-00-00T00:00:00.000Z
      type: service.join
      payload:
        id: db-1
        heartbeat_timeout: 120
        tags:
        - db
        - =cmd()
        metadata:
          host: ::1
          note: |-
            a "quote", <b>
            =cmd() 😀
          port: '5432'
    metadata:
      count: 6
      limit: 100
      next_marker: null

    $ raxsr events list -f html
    <table>
    <tr><th>Event ID</th><th>Timestamp</th><th>Event Type</th><th>Payload</th></tr>
    <tr><td>00000000-0000-0000-0000-000000000000</td><td>0000-00-00T00:00:00.000Z</td><td>configuration_value.remove</td><td>configuration_value_id: /prod/key<br>old_value: 2</td></tr>
    <tr><td>00000000-0000-0000-0000-000000000000</td><td>0000-00-00T00:00:00.000Z</td><td>configuration_value.update</td><td>configuration_value_id: /prod/key<br>old_value: 1<br>new_value: 2</td></tr>
    <tr><td>00000000-0000-0000-0000-000000000000</td><td>0000-00-00T00:00:00.000Z</td><td>configuration_value.update</td><td>configuration_value_id: /prod/key<br>old_value: <br>new_value: 1</td></tr>
    <tr><td>00000000-0000-0000-0000-000000000000</td><td>0000-00-00T00:00:00.000Z</td><td>service.remove</td><td>id: web-1<br>heartbeat_timeout: 120<br>tags: www<br>metadata: host: 10.0.0.7, port: 80</td></tr>
    <tr><td>00000000-0000-0000-0000-000000000000</td><td>0000-00-00T00:00:00.000Z</td><td>service.join</td><td>id: web-1<br>heartbeat_timeout: 120<br>tags: www<br>metadata: host: 10.0.0.7, port: 80</td></tr>
    <tr><td>00000000-0000-0000-0000-000000000000</td><td>0000-00-00T00:00:00.000Z</td><td>service.join</td><td>id: db-1<br>heartbeat_timeout: 120<br>tags: db, =cmd()<br>metadata: host: ::1, note: a &quot;quote&quot;, &lt;b&gt;<br>=cmd() 😀, port: 5432</td></tr>
    </table>
    "#);
}
