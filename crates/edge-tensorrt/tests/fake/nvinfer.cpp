// TensorRT without TensorRT: classes whose virtual methods stand where those of version VERSION do, and which run a linear
// network. Written from what the public documentation says of the interface; the places are those of tests/../src/version.rs,
// but made here by a C++ compiler.
//
// An "engine" is a text:
//
//     FALSE ENGINE VERSION
//     input NAME EXTENT...
//     output NAME EXTENT...
//     seed NUMBER
//     offset NUMBER           added to each value
//     delay NANOSECONDS       that each value takes at least, where a GPU computes
//     type NAME NUMBER        another type than float32
//     mode NAME NUMBER        neither input nor output
//     break METHOD            it fails, or gives something that is no object (see `broken`)
//
// With GPU defined a real GPU computes: addresses are then those of its memory, and a run ends after enqueueV3 has returned.

#include "common.h"
#if GPU
#include "kernel.h"
#endif
#include <cstdint>
#include <vector>

#define TEN (VERSION >= 100000)

// Methods that nobody should call, to fill a table.
[[noreturn]] void wrong(int place) {
    fake::report("a method that nobody should call was called, at line " + std::to_string(place));
    std::abort();
}
#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
#define F1 virtual void JOIN(filler_, __COUNTER__)() { wrong(__LINE__); }
#define F2 F1 F1
#define F3 F2 F1
#define F6 F3 F3
#define F9 F6 F3
#define F11 F9 F2
#define F12 F6 F6
#define F13 F12 F1
#define F19 F13 F6
#define F22 F11 F11
#define F27 F9 F9 F9

namespace {

std::atomic<int> live{0};

struct AtEnd {
    ~AtEnd() { fake::report("nvinfer unloaded: " + std::to_string(live) + " live"); }
} at_end;

enum class Severity : int32_t { INTERNAL_ERROR, ERROR, WARNING, INFO };

struct Logger {
    virtual void log(Severity severity, const char* message) noexcept = 0;
    virtual ~Logger() = default;
};

Logger* logger;

struct Dims {
    int32_t count;
#if TEN
    int64_t extents[8];
#else
    int32_t extents[8];
#endif
};

// A public class: the methods are elsewhere.
struct Root {
    virtual ~Root() noexcept { live--; }
};
struct Public {
    Public(Root* worker) : worker(worker) { live += 2; }
    virtual ~Public() noexcept {
        delete worker;
        live--;
    }
    Root* worker;
};

struct Tensor {
    std::string name;
    bool input = false;
    std::vector<int64_t> shape;
    int32_t type = 0;
    int32_t mode = 0;
    int64_t values() const {
        int64_t all = 1;
        for (int64_t extent : shape) all *= extent < 0 ? 1 : extent;
        return all;
    }
};

struct Plan {
    std::vector<Tensor> tensors;
    int64_t seed = 0;
    double offset = 0;
    int64_t delay = 0;
    std::string broken;

    Tensor* find(const std::string& name) {
        for (Tensor& tensor : tensors)
            if (tensor.name == name) return &tensor;
        return nullptr;
    }
};

// What a method that makes an object gives where it shall not give one.
Public* no_object(const std::string& how) {
    static void* words[16];
    static int data;
    if (how == "null") return nullptr;
    if (how == "small") return reinterpret_cast<Public*>(0x228);
    if (how == "odd") return reinterpret_cast<Public*>(reinterpret_cast<char*>(words) + 1);
    if (how == "unmapped") return reinterpret_cast<Public*>(0x7ead00000000);
    // Memory without a table.
    if (how == "zeros") return reinterpret_cast<Public*>(words);
    // A table whose methods are data.
    if (how == "data") {
        for (int i = 2; i < 16; i++) words[i] = &data;
        words[0] = &words[2];
        words[1] = &words[0];
        return reinterpret_cast<Public*>(words);
    }
    fake::report("no way to fail is called " + how);
    std::abort();
}

bool is_fault(const std::string& how) { return !how.empty() && how != "error"; }

struct ContextWorker : Root {
    Plan plan;
    std::map<std::string, void*> addresses;
    bool shaped = false;
    explicit ContextWorker(Plan plan) : plan(std::move(plan)) {}

    bool set_shape(const char* name, const Dims& dims) {
        Tensor* tensor = plan.find(name);
        if (!tensor || plan.broken == "setInputShape" || dims.count != int(tensor->shape.size())) return false;
        for (int i = 0; i < dims.count; i++)
            if (tensor->shape[i] != -1 && tensor->shape[i] != dims.extents[i]) return false;
        for (int i = 0; i < dims.count; i++) tensor->shape[i] = dims.extents[i];
        return shaped = true;
    }
    bool set_address(const char* name, void* address) {
        Tensor* tensor = plan.find(name);
        if (!tensor || plan.broken == (tensor->input ? "inputAddress" : "outputAddress")) return false;
        addresses[name] = address;
        return true;
    }
    bool fails(const std::string& what) {
        if (logger) logger->log(Severity::ERROR, ("enqueueV3: " + what).c_str());
        return false;
    }
    bool run(void* stream) {
        if (plan.broken == "enqueueV3" || !shaped) return fails("this engine is broken");
        const Tensor* input = nullptr;
        for (const Tensor& tensor : plan.tensors) {
            if (!addresses.count(tensor.name)) return false;
            if (tensor.input) input = &tensor;
        }
        for (const Tensor& tensor : plan.tensors) {
            if (tensor.input) continue;
            std::string wrong = compute(*input, tensor, stream);
            if (!wrong.empty()) return fails(wrong);
        }
        return true;
    }
#if GPU
    Kernel kernel;
    std::string compute(const Tensor& input, const Tensor& output, void* stream) {
        Kernel::Work work{addresses[input.name], addresses[output.name], input.values(), output.values(), plan.seed,
                          plan.offset, plan.delay};
        return kernel.begin(work, stream);
    }
#else
    std::string compute(const Tensor& input, const Tensor& output, void*) {
        const float* x = static_cast<const float*>(addresses[input.name]);
        float* y = static_cast<float*>(addresses[output.name]);
        for (int64_t k = 0; k < output.values(); k++) {
            double sum = plan.broken == "nan" ? 0.0 / 0.0 : plan.offset;
            for (int64_t i = 0; i < input.values(); i++) sum += double((k * 31 + i * 17 + plan.seed) % 13 - 6) / 64 * x[i];
            y[k] = float(sum);
        }
        return "";
    }
#endif

#if TEN
    F19
    virtual bool setInputShape(const char* name, const Dims& dims) noexcept { return set_shape(name, dims); }
    F2
    virtual bool setTensorAddress(const char* name, void* address) noexcept { return set_address(name, address); }
    F12
    virtual bool enqueueV3(void* stream) noexcept { return run(stream); }
#else
    F27
    virtual bool setInputShape(const char* name, const Dims& dims) noexcept { return set_shape(name, dims); }
    F2
    virtual bool setTensorAddress(const char* name, void* address) noexcept { return set_address(name, address); }
    F11
    virtual bool enqueueV3(void* stream) noexcept { return run(stream); }
#endif
};

struct EngineWorker : Root {
    Plan plan;
    explicit EngineWorker(Plan plan) : plan(std::move(plan)) {}

    Public* make() {
        if (plan.broken.rfind("context-", 0) == 0) return no_object(plan.broken.substr(8));
        if (plan.broken == "contextError") logger->log(Severity::ERROR, "no memory for the context");
        return new Public(new ContextWorker(plan));
    }
    Dims shape(const char* name) {
        Dims dims{};
        const Tensor* tensor = plan.find(name);
        dims.count = !tensor ? -1 : plan.broken == "dims" ? 1000 : int32_t(tensor->shape.size());
        for (int i = 0; tensor && i < dims.count && i < 8; i++) dims.extents[i] = tensor->shape[i];
        return dims;
    }
    int32_t type(const char* name) { return plan.find(name)->type; }
    int32_t mode(const char* name) { return plan.find(name)->mode; }
    int32_t count() { return plan.broken == "count" ? 1000000 : int32_t(plan.tensors.size()); }
    const char* name(int32_t index) {
        if (plan.broken == "name") return nullptr;
        if (plan.broken == "wildName") return reinterpret_cast<const char*>(0x228);
        return plan.tensors.at(index).name.c_str();
    }

#if TEN
    F3
    virtual Public* createExecutionContext(int32_t strategy) noexcept { return strategy ? nullptr : make(); }
    F13
#else
    F9
    virtual Public* createExecutionContext() noexcept { return make(); }
    F22
#endif
    virtual Dims getTensorShape(const char* tensor) const noexcept { return const_cast<EngineWorker*>(this)->shape(tensor); }
    virtual int32_t getTensorDataType(const char* tensor) const noexcept {
        return const_cast<EngineWorker*>(this)->type(tensor);
    }
    F2
    virtual int32_t getTensorIOMode(const char* tensor) const noexcept {
        return const_cast<EngineWorker*>(this)->mode(tensor);
    }
    F6
    virtual int32_t getNbIOTensors() const noexcept { return const_cast<EngineWorker*>(this)->count(); }
    virtual const char* getIOTensorName(int32_t index) const noexcept {
        return const_cast<EngineWorker*>(this)->name(index);
    }
};

Public* deserialize(const void* blob, size_t size) {
    std::string how = fake::fault("engine");
    if (is_fault(how)) return no_object(how);
    if (how == "error") logger->log(Severity::INTERNAL_ERROR, "the engine was only half read");
    std::istringstream text(std::string(static_cast<const char*>(blob), size));
    std::string line, word, name;
    int version = 0;
    std::getline(text, line);
    if (std::sscanf(line.c_str(), "FALSE ENGINE %d", &version) != 1 || version != VERSION) {
        logger->log(Severity::ERROR, "Version tag does not match");
        return nullptr;
    }
    Plan plan;
    while (std::getline(text, line)) {
        std::istringstream words(line);
        words >> word >> name;
        if (word == "seed") {
            plan.seed = std::atoi(name.c_str());
        } else if (word == "offset") {
            plan.offset = std::atof(name.c_str());
        } else if (word == "delay") {
            plan.delay = std::atoll(name.c_str());
        } else if (word == "break") {
            plan.broken = name;
        } else if (word == "type") {
            words >> plan.find(name)->type;
        } else if (word == "mode") {
            words >> plan.find(name)->mode;
        } else {
            Tensor tensor{name, word == "input", {}, 0, word == "input" ? 1 : 2};
            for (int64_t extent; words >> extent;) tensor.shape.push_back(extent);
            plan.tensors.push_back(tensor);
        }
    }
    return new Public(new EngineWorker(plan));
}

struct RuntimeWorker : Root {
#if TEN
    F1
    virtual Public* deserializeCudaEngine(const void* blob, size_t size) noexcept { return deserialize(blob, size); }
#else
    virtual Public* deserializeCudaEngine(const void* blob, size_t size, void* factory) noexcept {
        return factory ? nullptr : deserialize(blob, size);
    }
#endif
};

}  // namespace

extern "C" {

int32_t getInferLibVersion() noexcept { return fake::number("version", VERSION); }

void* createInferRuntime_INTERNAL(void* given, int32_t version) noexcept {
    fake::report("a runtime is made");
    logger = static_cast<Logger*>(given);
    if (version != getInferLibVersion()) return nullptr;
    logger->log(Severity::WARNING, "warnings are nothing");
    std::string how = fake::fault("runtime");
    if (how == "error") logger->log(Severity::ERROR, "CUDA initialization failure with error: 35");
    if (is_fault(how)) return no_object(how);
    return new Public(new RuntimeWorker);
}

}  // extern "C"
