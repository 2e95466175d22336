package control

import (
	"bytes"
	"encoding/json"
	"fmt"

	controlv1 "bailey/api/control/v1"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// jsonCodec is the JSON of the whole project: the field names of the .proto files, on one line. It replaces Connect's, which
// renames fields. It refuses unknown fields, because a filter or a condition that is silently ignored does harm.
type jsonCodec struct{}

func (jsonCodec) Name() string { return "json" }

func (jsonCodec) Marshal(message any) ([]byte, error) {
	m, ok := message.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is not a protobuf message", message)
	}
	return MarshalJSON(m)
}

func (jsonCodec) Unmarshal(data []byte, message any) error {
	m, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is not a protobuf message", message)
	}
	if len(data) == 0 {
		data = []byte("{}")
	}
	return protojson.Unmarshal(data, m)
}

// MarshalJSON returns m as the project's JSON. Messages of the control API show their zero values, so that a script finds
// "denied" before anything was denied; events do not, because most of their fields do not apply.
func MarshalJSON(m proto.Message) ([]byte, error) {
	_, isEvent := m.(*controlv1.EventsResponse)
	isControl := m.ProtoReflect().Descriptor().ParentFile().Package() == "bailey.control.v1"
	data, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: isControl && !isEvent}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s as JSON: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	// protojson varies its white space on purpose.
	var b bytes.Buffer
	if err := json.Compact(&b, data); err != nil {
		return nil, fmt.Errorf("encode %s as JSON: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return b.Bytes(), nil
}
