package agent

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestIntersect(t *testing.T) {
	for name, tt := range map[string]struct{ a, b, want []string }{
		"granted_inside_configured":  {[]string{"/home/me"}, []string{"/home", "/tmp"}, []string{"/home/me"}},
		"configured_inside_granted":  {[]string{"/"}, []string{"/home", "/tmp"}, []string{"/home", "/tmp"}},
		"disjoint":                   {[]string{"/srv"}, []string{"/home"}, nil},
		"a_name_is_not_a_directory":  {[]string{"/homework"}, []string{"/home"}, nil},
		"everything":                 {[]string{"/"}, []string{"/"}, []string{"/"}},
		"inner_goes_into_outer":      {[]string{"/home", "/home/me"}, []string{"/"}, []string{"/home"}},
		"the_same_twice":             {[]string{"/tmp", "/tmp"}, []string{"/tmp"}, []string{"/tmp"}},
		"nothing_granted_is_nothing": {nil, []string{"/"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, intersect(tt.a, tt.b)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOutsideNamesWhatTheConfigurationKeepsAway(t *testing.T) {
	got := outside([]string{"/home", "/srv/data", "/"}, []string{"/home", "/tmp"})
	if len(got) != 1 || !strings.Contains(got[0], "/srv/data") {
		t.Errorf("outside = %q, want one line about /srv/data", got)
	}
}
