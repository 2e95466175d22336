package main

import (
	"strings"
	"testing"
)

const someAttacks = `VM-RUN guard
=== RUN   TestAttacks
    attack_test.go:1: VM-ATTACK {"Group":"file","Attack":"set_acl","Hook":"inode_setxattr","Outcome":"stopped and reported","Control":"takes effect","Why":""}
    attack_test.go:1: VM-ATTACK {"Group":"kernel","Attack":"uprobe","Hook":"","Outcome":"possible","Control":"takes effect","Why":"it only counts"}
    attack_test.go:1: VM-ATTACK {"Group":"kernel","Attack":"nothing","Hook":"sysrq","Outcome":"stopped and reported","Control":"no effect","Why":"does not count: it does nothing"}
    attack_test.go:2: VM-ATTACKS 3
`

func TestTamperPageHasAllKernels(t *testing.T) {
	t.Parallel()
	b := &bench{}
	if err := b.noteAttacks("6.1.0-56-amd64", someAttacks); err != nil {
		t.Fatal(err)
	}
	if err := b.noteAttacks("6.12.1+deb13-amd64", strings.Replace(someAttacks, "inode_setxattr", "inode_set_acl", 1)); err != nil {
		t.Fatal(err)
	}
	page, err := tamperPage(b.attacks)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| Linux 6.1.0-56-amd64 | 3 | 2 | 1 | 0 | 0 | 0 | 1 |\n| Linux 6.12.1+deb13-amd64 | 3 | 2 | 1 | 0 | 0 | 0 | 1 |\n",
		"\n## file\n\n| attack | refused by | 6.1 | 6.12 | without | why |\n",
		"| set_acl | inode_setxattr (6.1), inode_set_acl (6.12) | stopped and reported | stopped and reported | takes effect |  |\n",
		"\n## kernel\n",
		"| uprobe |  | possible | possible | takes effect | it only counts |\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
}

func TestTamperPageWantsAllAttacks(t *testing.T) {
	t.Parallel()
	b := &bench{}
	some, _, _ := strings.Cut(someAttacks, "    attack_test.go:2:")
	if err := b.noteAttacks("6.1.0", some); err != nil || len(b.attacks) != 0 {
		t.Errorf("a part of the attacks: %v, %d runs", err, len(b.attacks))
	}
	lost := strings.Replace(someAttacks, "VM-ATTACK {\"Group\":\"file\"", "{", 1)
	if err := b.noteAttacks("6.1.0", lost); err == nil {
		t.Error("a report without one of its attacks is taken")
	}
	if err := b.noteAttacks("6.1.0", someAttacks); err != nil {
		t.Fatal(err)
	}
	if page, err := tamperPage(b.attacks); err == nil {
		t.Errorf("one kernel makes a page:\n%s", page)
	}
	strange := []attackRow{{Group: "file", Attack: "set_acl", Outcome: "slowed down", Control: "takes effect"}}
	if page, err := tamperPage([]attackRun{{rows: strange}, {rows: strange}}); err == nil {
		t.Errorf("an outcome that nobody knows makes a page:\n%s", page)
	}
	b.attacks = append(b.attacks, attackRun{version: "6.12", rows: b.attacks[0].rows[:2]})
	if page, err := tamperPage(b.attacks); err == nil {
		t.Errorf("other attacks on the other kernel make a page:\n%s", page)
	}
}
