package replay

import "reflect"

// mapped is a deep copy of a value with every string replaced, or the first error.
type mapped struct {
	v   reflect.Value
	err error
}

// mapStrings copies v, which must be made of the vocabulary's plain types, applying f to each string in it.
func mapStrings(v reflect.Value, f func(string) (string, error)) mapped {
	m := mapped{v: reflect.New(v.Type()).Elem()}
	m.copy(m.v, v, f)
	return m
}

func (m *mapped) copy(dst, src reflect.Value, f func(string) (string, error)) {
	switch src.Kind() {
	case reflect.String:
		s, err := f(src.String())
		if err != nil && m.err == nil {
			m.err = err
		}
		dst.SetString(s)
	case reflect.Pointer:
		if !src.IsNil() {
			dst.Set(reflect.New(src.Type().Elem()))
			m.copy(dst.Elem(), src.Elem(), f)
		}
	case reflect.Struct:
		for i := range src.NumField() {
			m.copy(dst.Field(i), src.Field(i), f)
		}
	case reflect.Slice:
		if !src.IsNil() {
			dst.Set(reflect.MakeSlice(src.Type(), src.Len(), src.Len()))
			for i := range src.Len() {
				m.copy(dst.Index(i), src.Index(i), f)
			}
		}
	case reflect.Map:
		m.copyMap(dst, src, f)
	default:
		dst.Set(src)
	}
}

func (m *mapped) copyMap(dst, src reflect.Value, f func(string) (string, error)) {
	if src.IsNil() {
		return
	}
	dst.Set(reflect.MakeMapWithSize(src.Type(), src.Len()))
	for it := src.MapRange(); it.Next(); {
		k, v := reflect.New(src.Type().Key()).Elem(), reflect.New(src.Type().Elem()).Elem()
		m.copy(k, it.Key(), f)
		m.copy(v, it.Value(), f)
		dst.SetMapIndex(k, v)
	}
}
